import { loadState, storedConfig } from '@tinyfusion/nn';
import type { StateDict } from '@tinyfusion/weights';
import { DiT, type DiTConfig } from './dit.js';
import { AutoencoderKL, type AutoencoderConfig } from './vae.js';

/**
 * A DiT from a checkpoint of ours alone, shallow ones included.
 * @throws CheckpointError where it holds something else, or tensors are missing, unexpected or wrongly shaped
 */
export async function loadDiT(state: StateDict): Promise<DiT> {
  const dit = new DiT(storedConfig<DiTConfig>(state, 'DiT'), { init: 'zeros' });
  await loadOrFree(dit, state);
  return dit;
}

/** An autoencoder from a checkpoint of ours alone. Throws as {@link loadDiT} does. */
export async function loadAutoencoderKL(state: StateDict): Promise<AutoencoderKL> {
  const vae = new AutoencoderKL(storedConfig<AutoencoderConfig>(state, 'AutoencoderKL'), { init: 'zeros' });
  await loadOrFree(vae, state);
  return vae;
}

async function loadOrFree(model: DiT | AutoencoderKL, state: StateDict): Promise<void> {
  try {
    await loadState(model, state);
  } catch (error) {
    model.dispose();
    throw error;
  }
}
