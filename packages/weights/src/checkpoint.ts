import { NoCheckpointError } from './no-checkpoint.js';
import { readNpy, readNpz } from './numpy.js';
import { readSafetensors } from './safetensors.js';
import type { Source } from './source.js';
import type { StateDict } from './state-dict.js';
import { readTorch } from './torch.js';
import { isZip, openZip } from './zip.js';

/**
 * Reads a checkpoint of any format, told by its contents: safetensors, PyTorch (zip or older), `.npz`, `.npy`.
 * @throws CheckpointError where it is none of them, or is damaged
 */
export async function readCheckpoint(source: Source): Promise<StateDict> {
  if (source.size === 0) throw new NoCheckpointError(`${source.name} is empty, expected a checkpoint`);
  const start = await source.read(0, Math.min(16, source.size));
  if (isZip(start)) return [...(await openZip(source)).keys()].some((name) => name.endsWith('/data.pkl')) ? readTorch(source) : readNpz(source);
  if (start[0] === 0x93 && start[1] === 0x4e) return readNpy(source);
  // the length of safetensors' header may begin with 0x80 as a pickle does, but no pickle has zeros there before a brace
  if (start[8] === 0x7b && start[5] === 0 && start[6] === 0 && start[7] === 0) return readSafetensors(source);
  if (start[0] === 0x80) return readTorch(source);
  if (start[8] === 0x7b) return readSafetensors(source);
  throw new NoCheckpointError(`${source.name} is no checkpoint: it begins with ${JSON.stringify(new TextDecoder('latin1').decode(start.subarray(0, 12)))}; expected safetensors, a PyTorch file (.pt, .pth, .ckpt), .npz or .npy`);
}
