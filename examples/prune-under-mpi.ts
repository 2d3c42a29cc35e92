// The fifteen lines over several processes: `mpirun -np 4 node examples/prune-under-mpi.ts`. Alone it does the same.
import '@tensorflow/tfjs';
import type { OnProgress } from '@tinyfusion/core';
import { firstImages } from '@tinyfusion/data';
import { defaultCollective } from '@tinyfusion/distributed';
import { loadAutoencoder, loadFashionMnist, loadTeacher } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { loadAutoencoderKL, loadDiT, saveModel } from '@tinyfusion/models';
import { distill, encodeDataset, learnMasks, shallowCopy } from '@tinyfusion/recipes';
import { writeFileAtomic } from '@tinyfusion/weights/node';

const steps = Number(process.argv[2] ?? 100);
await useBackend();
const collective = await defaultCollective(); // under mpirun all of its processes, else one
const leads = collective.rank === 0;

const teacher = await loadDiT(await loadTeacher());
const data = await encodeDataset(firstImages(await loadFashionMnist('train'), 1000), await loadAutoencoderKL(await loadAutoencoder()));
const onProgress: OnProgress = ({ task, step, total, values }) => {
  if (leads && step % 10 === 0) console.log(`${task} ${step}/${total}`, values);
};
// each rank computes its part of every batch, so the losses are those of one process
const options = { steps, batchSize: 64, seed: 0, collective, onProgress };
const { decision } = await learnMasks(teacher, data, { ...options, groups: '1:2' });
const student = await shallowCopy(teacher, decision.kept);
await distill(student, teacher, data, options);
if (leads) await writeFileAtomic('shallow.safetensors', await saveModel(student));
if (leads) console.log(`${collective.size} ${collective.size === 1 ? 'process' : 'processes'}: kept layers`, decision.kept.join(' '), '→ shallow.safetensors');
await collective.close();
