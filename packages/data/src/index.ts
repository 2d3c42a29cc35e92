export { shuffledBatches, type BatchPosition, type Batches } from './batches.js';
export { gunzip, readIdx, type IdxArray } from './idx.js';
export { checkDataset, firstImages, type ImageDataset } from './image-dataset.js';
export { paddedImages } from './transforms.js';
