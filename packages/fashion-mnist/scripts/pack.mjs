// Packs the first images of an IDX folder into assets/: labels, then images, gzipped.
//   node scripts/pack.mjs <folder with train-images-idx3-ubyte.gz …> [count]
// Debian's package dataset-fashion-mnist puts such a folder at /usr/share/datasets/fashion-mnist.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { constants, gunzipSync, gzipSync } from 'node:zlib';

const [folder, count = '10000'] = process.argv.slice(2);
if (folder === undefined) {
  console.error('usage: node scripts/pack.mjs <idx folder> [count]');
  process.exit(1);
}
for (const [split, prefix] of [['train', 'train'], ['test', 't10k']]) {
  const n = Number(count);
  const images = gunzipSync(readFileSync(join(folder, `${prefix}-images-idx3-ubyte.gz`))).subarray(16, 16 + n * 784);
  const labels = gunzipSync(readFileSync(join(folder, `${prefix}-labels-idx1-ubyte.gz`))).subarray(8, 8 + n);
  const packed = gzipSync(Buffer.concat([labels, images]), { level: constants.Z_BEST_COMPRESSION, memLevel: 9 });
  console.log(`${split}: ${n} images, ${packed.length} bytes`);
  writeFileSync(new URL(`../assets/${split}.bin.gz`, import.meta.url), packed);
}
