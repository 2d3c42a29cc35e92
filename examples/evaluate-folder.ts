// Measures a folder of images against another one: on FID's Inception where its weights are given, else on a network of your own.
import '@tensorflow/tfjs';
import { type FeatureNetwork, Inception, loadConvClassifier, openInceptionWeights } from '@tinyfusion/eval';
import { loadFeatureNetwork } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { evaluateImages } from '@tinyfusion/recipes';
import { folderSource } from '@tinyfusion/recipes/node';
import { fileSource } from '@tinyfusion/weights/node';
import * as tf from '@tensorflow/tfjs-core';

const [real, samples, weights] = process.argv.slice(2);
if (real === undefined || samples === undefined) throw new Error('node examples/evaluate-folder.ts <folder of real images> <folder of samples> [pt_inception-2015-12-05.pth]');
await useBackend();

// any function from images to features is a feature network; this one is a small classifier of clothes in grey, 28 × 28
async function ofClothes(): Promise<FeatureNetwork> {
  const classifier = await loadConvClassifier(await loadFeatureNetwork());
  const { inputSize, features, numClasses } = classifier.config;
  return {
    name: 'a classifier of Fashion-MNIST',
    inputSize,
    resize: 'bilinear, to grey',
    dimension: features,
    classes: numClasses,
    comparable: false,
    prepare: async (images) => tf.tidy(() => tf.image.resizeBilinear(tf.mean(images, 3, true) as tf.Tensor4D, [inputSize, inputSize], false, true)),
    run: (images) => classifier.forward(images),
  };
}

const network = weights === undefined ? await ofClothes() : await Inception.load(await openInceptionWeights(await fileSource(weights)));
const reference = await folderSource(real);
const { counts, warnings, network: name, ...numbers } = await evaluateImages(network, { name: real, images: reference }, await folderSource(samples), {
  onProgress: ({ task, step, total }) => step === total && console.log(`${task}: ${step} images`),
});
console.log(name, numbers);
for (const warning of warnings) console.log('note:', warning);
console.log(`FID ${numbers.fid?.toFixed(2)} of ${counts.samples} samples against ${counts.reference} images`);
