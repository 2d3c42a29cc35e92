import { ArgumentError, BackendError, type LongTaskOptions, type ProgressEvent } from '@tinyfusion/core';
import { type Denoiser, type GuidanceOptions, type UpdatingDenoiser, classifierFreeGuidance } from '@tinyfusion/diffusion';
import { type RecordedPass, recordPass } from '@tinyfusion/kernels';
import { type BlockHook, loadState, readState, requireStorable } from '@tinyfusion/nn';
import { stateDictOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { DiT } from './dit.js';
import { type LoadOptions, blank } from './filled.js';
import { SiT } from './sit.js';
import { configOf } from './checkpoint.js';
import { watchModel } from './watch-model.js';

/** Options of {@link compile}. */
export interface CompileOptions extends LongTaskOptions {
  /** Samples a step; each call of the denoiser has as many. */
  batch: number;
  /** Classifier-free guidance, in the same recording. Default: none. */
  cfg?: GuidanceOptions | undefined;
  /** Copies the weights to be held like this, see `LoadOptions`. Default: the model's own, as they are. */
  dtype?: LoadOptions['dtype'];
  /** Stands around each block, and does the same at every step, as one that leaves blocks out. Default: none. */
  hook?: BlockHook | undefined;
}

/** A model whose step is recorded. */
export interface CompiledModel {
  /** Whether dispatches are replayed: on WebGPU. Elsewhere the model runs as it is. */
  readonly recorded: boolean;
  /** Dispatches of a step. */
  readonly dispatches: number;
  /** Bytes of the recording on the device, weights aside. */
  readonly bytes: number;
  /** Whether a weight has changed since, or an adapter was switched, merged or taken off: compile the model again. */
  readonly stale: boolean;
  /**
   * A denoiser for some labels; all denoisers share the recording. A DiT's takes the steps of `ddim` and `dpmSolver` into it.
   * @param labels one a sample, in [0, numClasses), or numClasses for no class where the model has that
   * @throws ArgumentError where their number is not the batch's, or one is another; from the denoiser, BackendError where the model has changed since it was compiled, or this was disposed of
   */
  denoiser(labels: ArrayLike<number>): Denoiser | UpdatingDenoiser;
  /** Frees the recording, and the weights where they were copied. */
  dispose(): void;
}

/**
 * Records a denoising step once, to be replayed with no work in JavaScript for its operations: shaders are compiled side
 * by side first, with progress, then the dispatches of a step, guidance included, are noted, with buffers planned by when
 * they are needed. Weights are bound, not copied: after training, surgery or another choice of adapters, compile again. On
 * other backends than WebGPU the denoiser is the plain one, with the same checks.
 *
 * @param model borrowed, and to be kept until the compiled one is disposed
 * @throws ArgumentError where an option is out of range, or with `dtype` the model has adapters that are not merged
 */
export async function compile(model: DiT | SiT, { batch, cfg, dtype, hook, signal, onProgress }: CompileOptions): Promise<CompiledModel> {
  if (!Number.isInteger(batch) || batch < 1) throw new ArgumentError('CompileOptions.batch', batch, 'a positive integer');
  const { inputSize, inChannels, numClasses, classDropoutProb } = model.config;
  const guided = cfg !== undefined && cfg.scale !== 1;
  const nullClass = guided ? model.nullClass : 0;
  const owned = dtype === undefined ? undefined : await copied(model, dtype);
  const used = owned ?? model;
  const plain = (y: tf.Tensor1D): Denoiser => {
    const pass: Denoiser = (x, t) => used.forward(x as tf.Tensor4D, t, y, hook === undefined ? {} : { hook });
    return guided ? classifierFreeGuidance(pass, cfg) : pass;
  };
  const changed = watchModel(used);
  let disposed = false;
  const shape = [batch, inputSize, inputSize, inChannels];
  const examples = [tf.zeros(shape), tf.zeros([batch]), tf.zeros([guided ? 2 * batch : batch], 'int32'), tf.zeros(shape), tf.zeros([5])];
  let total = 1;
  const told = (event: ProgressEvent): void => {
    total = event.total ?? 1;
    onProgress?.(event);
  };
  const passes: RecordedPass[] = [];
  try {
    passes.push(await recordPass((x, t, y) => [plain(y as tf.Tensor1D)(x!, t as tf.Tensor1D)], examples.slice(0, 3), { signal, onProgress: told }));
    const [pass] = passes as [RecordedPass];
    // a recording costs little beside its buffers: the same step once more, with a solver's
    if (pass.recorded && !(model instanceof SiT)) passes.push(await recordPass((x, t, y, before, numbers) => linearStep(plain(y as tf.Tensor1D)(x!, t as tf.Tensor1D), x!, before!, numbers as tf.Tensor1D), examples, { signal }));
    const withUpdate = passes[1];
    onProgress?.({ task: 'compile', step: total, total, unit: 'shader', values: { dispatches: pass.dispatches } });
    return {
      recorded: pass.recorded,
      dispatches: pass.dispatches,
      bytes: passes.reduce((sum, { bytes }) => sum + bytes, 0),
      get stale() {
        return changed() !== undefined;
      },
      denoiser: (labels) => {
        if (labels.length !== batch) throw new ArgumentError('labels', Array.from(labels), `${batch} of them, as the model was compiled for`);
        const most = classDropoutProb > 0 ? numClasses : numClasses - 1;
        const wrong = Array.from(labels).findIndex((label) => !(Number.isInteger(label) && label >= 0 && label <= most));
        if (wrong >= 0) throw new ArgumentError('labels', labels[wrong], `integers from 0 to ${numClasses - 1}${most === numClasses ? `, or ${numClasses} for no class` : ''}`);
        const own = Int32Array.from(labels);
        const values = guided ? Int32Array.from([...own, ...own.map(() => nullClass)]) : own;
        const check = (): void => {
          if (disposed) throw new BackendError('the compiled model has been disposed of; compile the model again');
          const name = changed();
          if (name !== undefined) throw new BackendError(`${name} has changed since the model was compiled; compile it again`);
        };
        const denoiser: Denoiser = (x, t) => {
          check();
          return tf.tidy(() => pass.run([x, t, tf.tensor1d(values, 'int32')])[0]!);
        };
        if (withUpdate === undefined) return denoiser;
        const update: UpdatingDenoiser['update'] = (x, t, before, { start, next }) => {
          check();
          return tf.tidy(() => {
            const [moved, xStart] = withUpdate.run([x, t, tf.tensor1d(values, 'int32'), before ?? x, tf.tensor1d([...start, ...next])]);
            return { x: moved!, xStart: xStart! };
          });
        };
        return Object.assign(denoiser, { update });
      },
      dispose: () => {
        disposed = true;
        for (const recording of passes) recording.dispose();
        owned?.dispose();
      },
    };
  } catch (error) {
    for (const recording of passes) recording.dispose();
    owned?.dispose();
    throw error;
  } finally {
    tf.dispose(examples);
  }
}

/** The next x and x₀ of a step that is linear in x, the predicted ε and x₀ before, with its five numbers. */
function linearStep(output: tf.Tensor, x: tf.Tensor, before: tf.Tensor, numbers: tf.Tensor1D): tf.Tensor[] {
  const channels = x.shape.at(-1)!;
  const epsilon = output.shape.at(-1) === channels ? output : tf.split(output, [channels, output.shape.at(-1)! - channels], -1)[0]!;
  const [a, b, c, d, e] = [0, 1, 2, 3, 4].map((i) => tf.slice1d(numbers, i, 1)) as [tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor];
  const xStart = tf.add(tf.mul(x, a), tf.mul(epsilon, b));
  return [tf.add(tf.add(tf.mul(x, c), tf.mul(xStart, d)), tf.mul(before, e)), xStart];
}

/** The same model with weights of its own, held as `dtype`. */
async function copied(model: DiT | SiT, dtype: NonNullable<LoadOptions['dtype']>): Promise<DiT | SiT> {
  const held = blank(dtype);
  requireStorable('compile: dtype', model);
  const config = configOf(model);
  const copy = model instanceof SiT ? new SiT(config, { init: held }) : new DiT(config, { init: held });
  try {
    await loadState(copy, stateDictOf(await readState(model)));
    return copy;
  } catch (error) {
    copy.dispose();
    throw error;
  }
}
