// A pruned student learns two classes alone through a low-rank adapter: the adapter as PEFT's files, and merged.
import '@tensorflow/tfjs';
import { writeFile } from 'node:fs/promises';
import { createRng } from '@tinyfusion/core';
import { firstImages } from '@tinyfusion/data';
import { loadAutoencoder, loadFashionMnist, loadTeacher } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { injectLora, toPeft } from '@tinyfusion/lora';
import { loadAutoencoderKL, loadDiT, saveModel } from '@tinyfusion/models';
import { encodeDataset, objectiveOf, optimise, shallowCopy } from '@tinyfusion/recipes';
import { AdamW, constant } from '@tinyfusion/train';
import * as tf from '@tensorflow/tfjs-core';

const steps = Number(process.argv[2] ?? 100);
await useBackend();
const vae = await loadAutoencoderKL(await loadAutoencoder());
const student = await shallowCopy(await loadDiT(await loadTeacher()), [0, 2, 4, 7, 9, 11]);

const all = firstImages(await loadFashionMnist('train'), 2000);
const wanted = Array.from(all.labels.keys()).filter((i) => all.labels[i] === 7 || all.labels[i] === 9); // sneakers and boots
const size = all.height * all.width;
const shoes = { ...all, labels: Int32Array.from(wanted, (i) => all.labels[i]!), images: Uint8Array.from(wanted.flatMap((i) => Array.from(all.images.subarray(i * size, (i + 1) * size)))) };
const data = await encodeDataset(shoes, vae);

const rng = createRng(0);
const adapters = injectLora(student, { name: 'shoes', init: rng.split('adapter'), rank: 8, targets: /attn|mlp/ });
const parameters = adapters.parameters();
console.log(adapters.parameterCount(), 'values train beside', student.parameterCount() - adapters.parameterCount(), 'frozen ones');

const [batches, draws, objective] = [data.batches(32, rng.split('data')), rng.split('noise'), objectiveOf(student)];
await optimise(
  () => {
    const draw = objective.draw(student, batches.next(), draws);
    return tf.mean(draw.terms(draw.forward(student)).loss) as tf.Scalar;
  },
  { task: 'adapter', steps, groups: [{ parameters, optimizer: new AdamW(parameters), lr: constant(1e-3) }], onProgress: ({ step, total, values }) => step % 10 === 0 && console.log(`${step}/${total}`, values) },
);

const { config, weights } = await toPeft(adapters);
await writeFile('adapter_config.json', JSON.stringify(config));
await writeFile('adapter_model.safetensors', weights);
adapters.remove({ merged: true }); // a plain model again, with the adapter in its weights
await writeFile('shoes.safetensors', await saveModel(student));
console.log(`adapter of ${(weights.length / 1024).toFixed(0)} KB, merged → shoes.safetensors`);
