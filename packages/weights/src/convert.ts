import { encodeFloat32, type DType } from './dtype.js';
import { type StateDict, type TensorRecord, toFloat32 } from './state-dict.js';

const floats: ReadonlySet<DType> = new Set(['F64', 'F32', 'F16', 'BF16']);

/**
 * A state dict whose floats are of another type, converted when they are read; integers and booleans stay. Reading throws a
 * CheckpointError where a finite value is beyond the range of F16.
 */
export function withDtype(state: StateDict, dtype: 'F32' | 'F16'): StateDict {
  const tensors = new Map<string, TensorRecord>();
  for (const [name, record] of state.tensors) {
    const changes = floats.has(record.dtype) && record.dtype !== dtype;
    tensors.set(name, changes ? { dtype, shape: record.shape, read: async () => encodeFloat32(await toFloat32(record), dtype, name) } : record);
  }
  return { tensors, metadata: state.metadata };
}
