// Images of your own, a folder for each class: a small DiT is trained on their pixels, and half of its layers are learned.
import '@tensorflow/tfjs';
import { writeFile } from 'node:fs/promises';
import type { OnProgress } from '@tinyfusion/core';
import { centreCrop, normalised, shuffledBatches } from '@tinyfusion/data';
import { openImageFolder, readImages } from '@tinyfusion/data/node';
import { useBackend } from '@tinyfusion/kernels';
import { saveModel } from '@tinyfusion/models';
import { type LatentDataset, distill, fashionTeacher, learnMasks, shallowCopy, train } from '@tinyfusion/recipes';
import * as tf from '@tensorflow/tfjs-core';

const [path, steps, side] = [process.argv[2], Number(process.argv[3] ?? 2000), 16];
if (path === undefined) throw new Error('node examples/own-dataset.ts <folder with a folder for each class> [steps]');
await useBackend();

const folder = await openImageFolder(path);
const images: Float32Array[] = [];
for await (const image of readImages(folder)) images.push(normalised(centreCrop(image, side)));

// what recipes learn from is an object with a shape, labels and batches: yours may come from anywhere
const data: LatentDataset = {
  shape: [side, side, 3],
  labels: folder.labels,
  batches(batchSize, from) {
    const indices = shuffledBatches(images.length, batchSize, from);
    return {
      position: () => indices.position(),
      next: () => {
        const chosen = Array.from(indices.next());
        const latents = tf.tidy(() => tf.stack(chosen.map((i) => tf.tensor3d(images[i]!, [side, side, 3]))) as tf.Tensor4D);
        return { latents, labels: tf.tensor1d(chosen.map((i) => folder.labels[i]!), 'int32') };
      },
    };
  },
};

const onProgress: OnProgress = ({ task, step, total, values }) => {
  if (step % 50 === 0) console.log(`${task} ${step}/${total}`, values);
};
const options = { steps, batchSize: Math.min(32, images.length), seed: 0, onProgress };
const config = { ...fashionTeacher, inputSize: side, inChannels: 3, depth: 8, numClasses: folder.classNames.length };
const teacher = await train(data, { ...options, config });
const { decision } = await learnMasks(teacher, data, { ...options, groups: '1:2' });
const student = await shallowCopy(teacher, decision.kept);
await distill(student, teacher, data, options);
await writeFile('own.safetensors', await saveModel(student));
console.log(`${images.length} images of ${folder.classNames.join(', ')}: kept layers ${decision.kept.join(' ')} of 8 → own.safetensors`);
