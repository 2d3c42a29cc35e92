import { type Module, loadState } from '@tinyfusion/nn';
import type { StateDict } from '@tinyfusion/weights';

/** The model with a state dict's values, or nothing left of it where they do not fit. */
export async function filled<M extends Module>(model: M, state: StateDict): Promise<M> {
  try {
    await loadState(model, state);
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}
