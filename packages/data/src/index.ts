export { shuffledBatches, type BatchPosition, type Batches } from './batches.js';
export { gunzip, gunzipIfPacked, readIdx, type IdxArray } from './idx.js';
export { checkDataset, firstImages, type ImageDataset } from './image-dataset.js';
export { centreCrop, cropImage, normalised, resizeImage, type ByteImage, type ResampleFilter } from './resample.js';
export { paddedImages } from './transforms.js';
