// Makes the student that the page opens with, by what the page itself does: masks learned, blocks removed, masked RepKD.
//   pnpm --filter @tinyfusion/studio make-student     (after the packages are built; about ten minutes on two cores)
import '@tensorflow/tfjs';
import { firstImages } from '@tinyfusion/data';
import { loadAutoencoder, loadFashionMnist, loadTeacher } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { loadAutoencoderKL, loadDiT, saveModel } from '@tinyfusion/models';
import { pruneMetadata } from '@tinyfusion/pruning';
import { distill, encodeDataset, learnMasks, shallowCopy } from '@tinyfusion/recipes';
import { stateDictHash } from '@tinyfusion/weights';
import { writeFileAtomic } from '@tinyfusion/weights/node';

const [maskSteps, recoverySteps] = [100, 300];
const onProgress = ({ task, step, total, values }) => void (step % 20 === 0 && console.log(task, step, 'of', total, values?.loss?.toFixed(4) ?? ''));

await useBackend({ prefer: 'wasm' });
const state = await loadTeacher();
const teacher = await loadDiT(state);
const data = await encodeDataset(firstImages(await loadFashionMnist('train'), 5000), await loadAutoencoderKL(await loadAutoencoder()), {});
const { decision } = await learnMasks(teacher, data, { groups: '1:2', steps: maskSteps, batchSize: 64, lr: 1e-3, gateLr: 1e-3, seed: 0, onProgress });
const student = await shallowCopy(teacher, decision.kept);
await distill(student, teacher, data, { steps: recoverySteps, batchSize: 64, lr: 1e-3, emaDecay: 0.98, seed: 0, onProgress });
const record = {
  version: 1,
  stack: 'blocks',
  kept: decision.kept,
  depth: teacher.blocks.length,
  criterion: 'learned',
  teacher: { name: 'fashion-mnist teacher', sha256: await stateDictHash(state) },
  groups: decision.groups.map(() => [1, 2]),
  confidence: decision.groups.map(({ confidence }) => confidence),
  seed: 0,
  command: 'node examples/studio/scripts/make-student.mjs',
};
const file = new URL('../assets/student.safetensors', import.meta.url).pathname;
await writeFileAtomic(file, await saveModel(student, { dtype: 'F16', metadata: [pruneMetadata(record), ['tinyfusion.studio.steps', String(recoverySteps)]] }));
console.log('kept', decision.kept.join(' '));
