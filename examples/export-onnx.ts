// A pruned model as an ONNX file, and ONNX Runtime drawing from it with our sampler.
import '@tensorflow/tfjs';
import { readFile } from 'node:fs/promises';
import { createRng } from '@tinyfusion/core';
import { GaussianDiffusion, classifierFreeGuidance, dpmSolver, sampleToEnd } from '@tinyfusion/diffusion';
import { loadTeacher } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { loadDiT } from '@tinyfusion/models';
import { onnxDenoiser } from '@tinyfusion/onnx';
import { writeOnnx } from '@tinyfusion/onnx/node';
import { shallowCopy } from '@tinyfusion/recipes';
import * as tf from '@tensorflow/tfjs-core';
import { InferenceSession } from 'onnxruntime-node';

await useBackend();
const student = await shallowCopy(await loadDiT(await loadTeacher()), [0, 2, 4, 7, 9, 11]);
await writeOnnx('student.onnx', student);

const session = await InferenceSession.create('student.onnx');
const denoiser = classifierFreeGuidance(onnxDenoiser(session, { labels: [7, 9, student.nullClass, student.nullClass] }), { scale: 2.5, channels: 'all' });
const noise = tf.tensor4d(createRng(0).normal(2 * 8 * 8 * 4), [2, 8, 8, 4]);
const latents = await sampleToEnd(dpmSolver(new GaussianDiffusion(), denoiser, { noise, steps: 10 }));
console.log(`${((await readFile('student.onnx')).length / 1e6).toFixed(1)} MB of ONNX drew [${latents.shape}] → student.onnx`);
