export { bytesPerValue, decodeFloat32, encodeFloat32, type DType } from './dtype.js';
export { parseSafetensors, readSafetensors, writableTensor, writeSafetensors, type WritableTensor } from './safetensors.js';
export { blobSource, bytesSource, type Source } from './source.js';
export { stateDictHash, stateDictOf, toFloat32, toFloat64, type StateDict, type TensorRecord } from './state-dict.js';
export { readCheckpoint } from './checkpoint.js';
export { parseNpz, readNpy, readNpz, writeNpz } from './numpy.js';
export { parseTorch, readTorch, weightsOf, writeTorch, type TorchCheckpoint } from './torch.js';
