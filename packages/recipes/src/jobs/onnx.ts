import { CheckpointError, type LongTaskOptions } from '@tinyfusion/core';
import { loadModel, loadReference, loadReferenceAutoencoder, loadTinyAutoencoder } from '@tinyfusion/models';
import { MODEL_KEY } from '@tinyfusion/nn';
import type { ExportableModel, OnnxPart } from '@tinyfusion/onnx';
import { writeOnnx } from '@tinyfusion/onnx/node';
import { PRUNE_RECORD_KEY } from '@tinyfusion/pruning';
import { type StateDict, weightsOf } from '@tinyfusion/weights';
import { checkWritable } from '@tinyfusion/weights/node';
import { type AdapterChoice, withAdapters } from './adapter-files.js';
import type { JobContext } from './context.js';
import { withHeads } from './reference-model.js';
import { rebuilt } from './rebuilt.js';
import { openWeights } from './weights-file.js';

/** Options of `tinyfusion convert` to `.onnx`. */
export interface OnnxJob extends AdapterChoice {
  /** Name of a published model, where the checkpoint is not ours. */
  model?: string;
  /** Its attention heads, where it is as wide as no published one. */
  heads?: number;
  part?: OnnxPart;
  dtype?: 'F32' | 'F16';
  weights?: string;
}

/** Writes a model as ONNX: a checkpoint of ours, a published DiT, SiT or MAR, or an autoencoder. */
export async function onnxJob(from: string, to: string, { model: name, heads, part, dtype, weights, lora }: OnnxJob, context: JobContext): Promise<void> {
  await checkWritable(to);
  await using checkpoint = await openWeights(from, context);
  const state = await withAdapters(rebuilt(weightsOf(checkpoint, weights)), lora, context);
  const { signal, onProgress } = context;
  const task = { signal, onProgress };
  const model = await modelOf(state, name, heads, task);
  const record = checkpoint.metadata.get(PRUNE_RECORD_KEY);
  const paths = await writeOnnx(to, model, { ...task, ...(part === undefined ? {} : { part }), ...(dtype === undefined ? {} : { dtype }), ...(record === undefined ? {} : { metadata: [[PRUNE_RECORD_KEY, record]] }) });
  model.dispose();
  console.log(`wrote ${paths.join(' and ')}`);
}

async function modelOf(state: StateDict, name: string | undefined, heads: number | undefined, task: LongTaskOptions): Promise<ExportableModel> {
  if (name !== undefined) return loadReference(name, state, { ...withHeads(name, heads), ...task });
  if (state.metadata.has(MODEL_KEY)) return loadModel(state, task);
  if (state.tensors.has('encoder.conv_in.weight') || state.tensors.has('decoder.conv_in.weight')) return loadReferenceAutoencoder(state, task);
  if (state.tensors.has('decoder.layers.3.conv.0.weight')) return loadTinyAutoencoder(state, task);
  throw new CheckpointError('the checkpoint does not say which model it is of; name it with --model, e.g. DiT-XL/2');
}
