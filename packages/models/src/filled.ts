import { ArgumentError, type LongTaskOptions } from '@tinyfusion/core';
import type { PackedDtype } from '@tinyfusion/kernels';
import { type Init, type Module, loadState } from '@tinyfusion/nn';
import type { StateDict } from '@tinyfusion/weights';

/** How weights are loaded and held. */
export interface LoadOptions extends LongTaskOptions {
  /**
   * How the device holds the weights of linear layers, nearly all of a transformer's: as float32, as float16 in half the
   * space, as bytes with a scale for each output in a quarter of it, or as half bytes with a scale for every 32 inputs in
   * an eighth and a bit; they are expanded inside the products. Packed
   * weights are not trained. Tensors are loaded one by one, and none is on the device as float32 then. Default `'F32'`.
   */
  dtype?: 'F32' | PackedDtype | undefined;
}

/** First values of a model that a checkpoint fills. @throws ArgumentError where the type is none that weights are held as */
export function blank(dtype: LoadOptions['dtype'] = 'F32'): Init {
  if (!['F32', 'F16', 'I8', 'I4'].includes(dtype)) throw new ArgumentError('LoadOptions.dtype', dtype, "one of 'F32', 'F16', 'I8', 'I4': how the device holds the weights, whatever the file's own type");
  return dtype === 'F32' ? 'zeros' : { packed: dtype };
}

/** The model with a state dict's values, or nothing left of it where they do not fit. */
export async function filled<M extends Module>(model: M, state: StateDict, options: LongTaskOptions = {}): Promise<M> {
  try {
    await loadState(model, state, options);
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}
