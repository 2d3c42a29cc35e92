import { ArgumentError, CheckpointError } from '@tinyfusion/core';
import { type Float, axes, conv2d, linear } from '@tinyfusion/kernels';
import { Module } from '@tinyfusion/nn';
import { type StateDict, stateDictHash, toFloat32 } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import type { FeatureNetwork } from './feature-network.js';

/** Everything that one pass of {@link Inception} can give. */
export interface InceptionFeatures {
  /** `[N, 64]`, after the first pooling, averaged over space. */
  64: tf.Tensor2D;
  /** `[N, 192]`, after the second pooling, averaged over space. */
  192: tf.Tensor2D;
  /** `[N, 768]`, before the last reduction, averaged over space. */
  768: tf.Tensor2D;
  /** `[N, 2048]`, what FID is computed from. */
  2048: tf.Tensor2D;
  /** `[N, 1008]`, without the bias: what the Inception Score is computed from. */
  logitsUnbiased: tf.Tensor2D;
  /** `[N, 1008]` */
  logits: tf.Tensor2D;
  /** `[N, 2023]`, the first seven maps of 17×17 of one branch: what sFID is computed from. */
  spatial: tf.Tensor2D;
}

/** Options of {@link Inception.forward}. */
export interface InceptionOptions {
  /**
   * How images become 299×299. `'tensorflow'`: as the graph of 2015 did, bilinear without half-pixel centres, then
   * (x − 128)/128; ADM's evaluator and torch-fidelity. `'pytorch-fid'`: bilinear with half-pixel centres, then x/127.5 − 1;
   * its numbers differ visibly. Default `'tensorflow'`.
   */
  preprocessing?: 'tensorflow' | 'pytorch-fid';
  /** Sees what each block puts out, e.g. `'Mixed_5b'`; borrowed. */
  onBlock?: (name: string, output: tf.Tensor4D) => void;
}

/** A convolution with its batch norm folded in. */
interface FoldedConv {
  weight: tf.Variable;
  bias: tf.Variable;
}

/** Names and shapes: output channels, kernel (height, width), stride, padding (0: none, else all of the kernel's half). */
type ConvSpec = readonly [name: string, inputs: number, outputs: number, kernel: number | readonly [number, number]];

/**
 * The Inception-v3 of FID: the TensorFlow graph of 2015-12-05 with its quirks — averages that leave out the padding, a
 * maximum in the last block's pool, 1008 logits (Szegedy et al. 2016; Heusel et al. 2017). Built from the weights that
 * torch-fidelity and pytorch-fid publish, `pt_inception-2015-12-05`. Not trainable: batch norms are folded into the
 * convolutions, in float64.
 */
export class Inception extends Module {
  readonly #convs = new Map<string, FoldedConv>();
  #fc: FoldedConv | undefined;

  /**
   * @throws CheckpointError where tensors are missing or wrongly shaped
   */
  static async load(state: StateDict): Promise<Inception> {
    const net = new Inception();
    try {
      for (const [name, inputs, outputs, kernel] of convolutions()) {
        const [kh, kw] = typeof kernel === 'number' ? [kernel, kernel] : kernel;
        const shape = [outputs, inputs, kh, kw];
        const weight = await read(state, `${name}.conv.weight`, shape);
        const [gain, shift, mean, variance] = await Promise.all(['weight', 'bias', 'running_mean', 'running_var'].map((part) => read(state, `${name}.bn.${part}`, [outputs])));
        const size = inputs * kh * kw;
        const scale = Float64Array.from(gain!, (g, o) => g / Math.sqrt(variance![o]! + 1e-3));
        net.#convs.set(name, {
          weight: variable(weight.map((w, i) => w * scale[Math.floor(i / size)]!), shape),
          bias: variable(shift!.map((b, o) => b - mean![o]! * scale[o]!), [outputs]),
        });
      }
      net.#fc = { weight: variable(await read(state, 'fc.weight', [1008, 2048]), [1008, 2048]), bias: variable(await read(state, 'fc.bias', [1008]), [1008]) };
    } catch (error) {
      net.dispose();
      throw error;
    }
    return net;
  }

  /** @param images `[N, H, W, 3]`, values from 0 to 255 */
  forward(images: Float<'N H W C'>, { preprocessing = 'tensorflow', onBlock }: InceptionOptions = {}): InceptionFeatures {
    axes('Inception.forward: images', images, 'N H W C', { C: 3 });
    const seen = (name: string, x: tf.Tensor4D): tf.Tensor4D => {
      onBlock?.(name, x);
      return x;
    };
    return tf.tidy(() => {
      const prepared = prepareImages(images, preprocessing);
      let x = this.#conv('Conv2d_1a_3x3', prepared, { stride: 2 });
      x = this.#conv('Conv2d_2a_3x3', x);
      x = this.#conv('Conv2d_2b_3x3', x, { same: true });
      x = tf.maxPool(x, 3, 2, 'valid');
      const f64 = spaceMean(x);
      x = this.#conv('Conv2d_3b_1x1', x);
      x = this.#conv('Conv2d_4a_3x3', x);
      x = tf.maxPool(x, 3, 2, 'valid');
      const f192 = spaceMean(x);
      for (const name of ['Mixed_5b', 'Mixed_5c', 'Mixed_5d']) x = seen(name, this.#blockA(name, x));
      x = seen('Mixed_6a', this.#reductionB('Mixed_6a', x));
      let spatial: tf.Tensor2D | undefined;
      for (const name of ['Mixed_6b', 'Mixed_6c', 'Mixed_6d', 'Mixed_6e']) {
        const { output, first } = this.#blockC(name, x);
        if (name === 'Mixed_6d') spatial = tf.reshape(tf.slice(first, [0, 0, 0, 0], [-1, -1, -1, 7]), [images.shape[0], -1]);
        x = seen(name, output);
      }
      const f768 = spaceMean(x);
      x = seen('Mixed_7a', this.#reductionD('Mixed_7a', x));
      x = seen('Mixed_7b', this.#blockE('Mixed_7b', x, 'average'));
      x = seen('Mixed_7c', this.#blockE('Mixed_7c', x, 'max'));
      const f2048 = spaceMean(x);
      const { weight, bias } = this.#fc!;
      const logitsUnbiased = linear(f2048, weight as tf.Tensor as tf.Tensor2D) as tf.Tensor2D;
      return { 64: f64, 192: f192, 768: f768, 2048: f2048, logitsUnbiased, logits: tf.add(logitsUnbiased, bias) as tf.Tensor2D, spatial: spatial! };
    }) as InceptionFeatures;
  }

  override dispose(): void {
    for (const { weight, bias } of [...this.#convs.values(), ...(this.#fc === undefined ? [] : [this.#fc])]) tf.dispose([weight, bias]);
    this.#convs.clear();
    this.#fc = undefined;
  }

  #conv(name: string, x: tf.Tensor4D, { stride = 1, same = false }: { stride?: number; same?: boolean } = {}): tf.Tensor4D {
    const { weight, bias } = this.#convs.get(name)!;
    const [, , kh, kw] = weight.shape as [number, number, number, number];
    const [vertical, horizontal] = same ? [(kh - 1) / 2, (kw - 1) / 2] : [0, 0];
    return tf.relu(conv2d(x, weight as tf.Tensor as tf.Tensor4D, bias as tf.Tensor as tf.Tensor1D, { stride, padding: [[vertical, vertical], [horizontal, horizontal]] }));
  }

  /** A chain of convolutions that keep the size. */
  #chain(block: string, x: tf.Tensor4D, names: readonly string[]): tf.Tensor4D {
    let h = x;
    for (const name of names) h = this.#conv(`${block}.${name}`, h, { same: true });
    return h;
  }

  #blockA(name: string, x: tf.Tensor4D): tf.Tensor4D {
    return tf.concat([this.#chain(name, x, ['branch1x1']), this.#chain(name, x, ['branch5x5_1', 'branch5x5_2']), this.#chain(name, x, ['branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3']), this.#chain(name, tf.avgPool(x, 3, 1, 'same'), ['branch_pool'])], 3);
  }

  #reductionB(name: string, x: tf.Tensor4D): tf.Tensor4D {
    const double = this.#conv(`${name}.branch3x3dbl_3`, this.#chain(name, x, ['branch3x3dbl_1', 'branch3x3dbl_2']), { stride: 2 });
    return tf.concat([this.#conv(`${name}.branch3x3`, x, { stride: 2 }), double, tf.maxPool(x, 3, 2, 'valid')], 3);
  }

  #blockC(name: string, x: tf.Tensor4D): { output: tf.Tensor4D; first: tf.Tensor4D } {
    const first = this.#chain(name, x, ['branch1x1']);
    const seven = this.#chain(name, x, ['branch7x7_1', 'branch7x7_2', 'branch7x7_3']);
    const double = this.#chain(name, x, ['branch7x7dbl_1', 'branch7x7dbl_2', 'branch7x7dbl_3', 'branch7x7dbl_4', 'branch7x7dbl_5']);
    return { first, output: tf.concat([first, seven, double, this.#chain(name, tf.avgPool(x, 3, 1, 'same'), ['branch_pool'])], 3) };
  }

  #reductionD(name: string, x: tf.Tensor4D): tf.Tensor4D {
    const three = this.#conv(`${name}.branch3x3_2`, this.#chain(name, x, ['branch3x3_1']), { stride: 2 });
    const seven = this.#conv(`${name}.branch7x7x3_4`, this.#chain(name, x, ['branch7x7x3_1', 'branch7x7x3_2', 'branch7x7x3_3']), { stride: 2 });
    return tf.concat([three, seven, tf.maxPool(x, 3, 2, 'valid')], 3);
  }

  #blockE(name: string, x: tf.Tensor4D, pool: 'average' | 'max'): tf.Tensor4D {
    const three = this.#chain(name, x, ['branch3x3_1']);
    const double = this.#chain(name, x, ['branch3x3dbl_1', 'branch3x3dbl_2']);
    const pooled = pool === 'average' ? tf.avgPool(x, 3, 1, 'same') : tf.maxPool(x, 3, 1, 'same');
    return tf.concat(
      [
        this.#chain(name, x, ['branch1x1']),
        this.#chain(name, three, ['branch3x3_2a']),
        this.#chain(name, three, ['branch3x3_2b']),
        this.#chain(name, double, ['branch3x3dbl_3a']),
        this.#chain(name, double, ['branch3x3dbl_3b']),
        this.#chain(name, pooled, ['branch_pool']),
      ],
      3,
    );
  }
}

/** Images from 0 to 255 as the network takes them: 299×299, about [-1, 1]. */
export function prepareImages(images: tf.Tensor4D, preprocessing: NonNullable<InceptionOptions['preprocessing']>): tf.Tensor4D {
  checkPreprocessing(preprocessing);
  return tf.tidy(() => {
    const tensorflow = preprocessing === 'tensorflow';
    const resized = tf.image.resizeBilinear(images, [SIDE, SIDE], false, !tensorflow);
    return tensorflow ? tf.div(tf.sub(resized, 128), 128) : tf.sub(tf.div(resized, 127.5), 1);
  });
}

const SIDE = 299;

function checkPreprocessing(preprocessing: string): void {
  if (preprocessing !== 'tensorflow' && preprocessing !== 'pytorch-fid') throw new ArgumentError('InceptionOptions.preprocessing', preprocessing, "'tensorflow' or 'pytorch-fid'");
}

/**
 * Inception as a feature network, with the weights of a `pt_inception-2015-12-05` file: features of 2048 and logits
 * without bias, what FID and IS of papers are made of.
 */
export async function inceptionFeatures(state: StateDict, { preprocessing = 'tensorflow' }: Pick<InceptionOptions, 'preprocessing'> = {}): Promise<FeatureNetwork & { dispose(): void }> {
  checkPreprocessing(preprocessing);
  const net = await Inception.load(state);
  return {
    name: `Inception-v3 of 2015-12-05 (${preprocessing} preprocessing)`,
    version: await stateDictHash(state),
    inputSize: SIDE,
    resize: preprocessing === 'tensorflow' ? 'bilinear, TensorFlow 1' : 'bilinear, half-pixel centres',
    dimension: 2048,
    classes: 1008,
    comparable: true,
    run: (images) =>
      tf.tidy(() => {
        // images in [-1, 1] are what was saved as 8 bits
        const bytes = tf.clipByValue(tf.round(tf.mul(tf.add(images, 1), 127.5)), 0, 255) as tf.Tensor4D;
        const { 2048: features, logitsUnbiased: logits } = net.forward(bytes);
        return { features, logits };
      }),
    dispose: () => net.dispose(),
  };
}

const spaceMean = (x: tf.Tensor4D): tf.Tensor2D => tf.mean(x, [1, 2]);

/** Every convolution with its channels and kernel, under the published names. */
function convolutions(): ConvSpec[] {
  const stem: ConvSpec[] = [
    ['Conv2d_1a_3x3', 3, 32, 3],
    ['Conv2d_2a_3x3', 32, 32, 3],
    ['Conv2d_2b_3x3', 32, 64, 3],
    ['Conv2d_3b_1x1', 64, 80, 1],
    ['Conv2d_4a_3x3', 80, 192, 3],
  ];
  const wide = [1, 7] as const;
  const tall = [7, 1] as const;
  const inside = (block: string, specs: readonly ConvSpec[]): ConvSpec[] => specs.map(([name, inputs, outputs, kernel]) => [`${block}.${name}`, inputs, outputs, kernel]);
  const a = (block: string, inputs: number, pool: number) =>
    inside(block, [['branch1x1', inputs, 64, 1], ['branch5x5_1', inputs, 48, 1], ['branch5x5_2', 48, 64, 5], ['branch3x3dbl_1', inputs, 64, 1], ['branch3x3dbl_2', 64, 96, 3], ['branch3x3dbl_3', 96, 96, 3], ['branch_pool', inputs, pool, 1]]);
  const c = (block: string, seven: number) =>
    inside(block, [
      ['branch1x1', 768, 192, 1],
      ['branch7x7_1', 768, seven, 1],
      ['branch7x7_2', seven, seven, wide],
      ['branch7x7_3', seven, 192, tall],
      ['branch7x7dbl_1', 768, seven, 1],
      ['branch7x7dbl_2', seven, seven, tall],
      ['branch7x7dbl_3', seven, seven, wide],
      ['branch7x7dbl_4', seven, seven, tall],
      ['branch7x7dbl_5', seven, 192, wide],
      ['branch_pool', 768, 192, 1],
    ]);
  const e = (block: string, inputs: number) =>
    inside(block, [
      ['branch1x1', inputs, 320, 1],
      ['branch3x3_1', inputs, 384, 1],
      ['branch3x3_2a', 384, 384, [1, 3]],
      ['branch3x3_2b', 384, 384, [3, 1]],
      ['branch3x3dbl_1', inputs, 448, 1],
      ['branch3x3dbl_2', 448, 384, 3],
      ['branch3x3dbl_3a', 384, 384, [1, 3]],
      ['branch3x3dbl_3b', 384, 384, [3, 1]],
      ['branch_pool', inputs, 192, 1],
    ]);
  return [
    ...stem,
    ...a('Mixed_5b', 192, 32),
    ...a('Mixed_5c', 256, 64),
    ...a('Mixed_5d', 288, 64),
    ...inside('Mixed_6a', [['branch3x3', 288, 384, 3], ['branch3x3dbl_1', 288, 64, 1], ['branch3x3dbl_2', 64, 96, 3], ['branch3x3dbl_3', 96, 96, 3]]),
    ...c('Mixed_6b', 128),
    ...c('Mixed_6c', 160),
    ...c('Mixed_6d', 160),
    ...c('Mixed_6e', 192),
    ...inside('Mixed_7a', [['branch3x3_1', 768, 192, 1], ['branch3x3_2', 192, 320, 3], ['branch7x7x3_1', 768, 192, 1], ['branch7x7x3_2', 192, 192, wide], ['branch7x7x3_3', 192, 192, tall], ['branch7x7x3_4', 192, 192, 3]]),
    ...e('Mixed_7b', 1280),
    ...e('Mixed_7c', 2048),
  ];
}

/** Shapes of all tensors that {@link Inception.load} reads, by name. */
export function inceptionShapes(): Map<string, number[]> {
  const shapes = new Map<string, number[]>();
  for (const [name, inputs, outputs, kernel] of convolutions()) {
    shapes.set(`${name}.conv.weight`, [outputs, inputs, ...(typeof kernel === 'number' ? [kernel, kernel] : kernel)]);
    for (const part of ['weight', 'bias', 'running_mean', 'running_var']) shapes.set(`${name}.bn.${part}`, [outputs]);
  }
  return shapes.set('fc.weight', [1008, 2048]).set('fc.bias', [1008]);
}

async function read(state: StateDict, name: string, shape: readonly number[]): Promise<Float32Array> {
  const record = state.tensors.get(name);
  if (record === undefined || String(record.shape) !== String(shape)) {
    throw new CheckpointError(`the Inception checkpoint has ${record === undefined ? 'no' : `[${record.shape.join(', ')}] for`} ${name}, expected [${shape.join(', ')}]; the file is pt_inception-2015-12-05`);
  }
  return toFloat32(record);
}

const variable = (values: Float32Array, shape: number[]): tf.Variable => tf.tidy(() => tf.variable(tf.tensor(values, shape), false));
