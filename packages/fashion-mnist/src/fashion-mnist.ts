import { type ImageDataset, checkDataset, gunzipIfPacked } from '@tinyfusion/data';
import { DataError } from '@tinyfusion/core';
import { loadAsset } from './assets.js';

/** Names of the ten classes, by label. */
export const fashionMnistClassNames = ['T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot'] as const;

/** The first 10,000 training images of Fashion-MNIST (Xiao et al. 2017), or its 10,000 test images: 28×28, grey. */
export async function loadFashionMnist(split: 'train' | 'test' = 'train'): Promise<ImageDataset> {
  const name = `${split}.bin.gz` as const;
  const bytes = await gunzipIfPacked(await loadAsset(name), name);
  if (bytes.length % 785 !== 0) throw new DataError(`${name} has ${bytes.length} bytes, expected a multiple of 785; install @tinyfusion/fashion-mnist again`);
  const count = bytes.length / 785;
  return checkDataset({ labels: Int32Array.from(bytes.subarray(0, count)), images: bytes.subarray(count), height: 28, width: 28, channels: 1, numClasses: 10, classNames: fashionMnistClassNames }, name);
}
