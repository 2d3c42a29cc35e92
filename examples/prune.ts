// Fifteen lines from a teacher to a recovered shallow model in one file.
import '@tensorflow/tfjs';
import { writeFile } from 'node:fs/promises';
import { firstImages } from '@tinyfusion/data';
import { loadAutoencoder, loadFashionMnist, loadTeacher } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { loadAutoencoderKL, loadDiT, saveModel } from '@tinyfusion/models';
import { distill, encodeDataset, learnMasks, shallowCopy } from '@tinyfusion/recipes';

const steps = Number(process.argv[2] ?? 100);
await useBackend();
const teacher = await loadDiT(await loadTeacher());
const data = await encodeDataset(firstImages(await loadFashionMnist('train'), 1000), await loadAutoencoderKL(await loadAutoencoder()));
const { decision } = await learnMasks(teacher, data, { groups: '1:2', steps, seed: 0 });
const student = await shallowCopy(teacher, decision.kept);
await distill(student, teacher, data, { steps, seed: 0, onProgress: ({ step, total, values }) => step % 10 === 0 && console.log(`${step}/${total}`, values) });
await writeFile('shallow.safetensors', await saveModel(student));
console.log('kept layers', decision.kept.join(' '), '→ shallow.safetensors');
