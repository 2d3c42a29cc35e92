import { createRng } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { counters } from './counters.js';
import type { Gpu } from './gpu.js';
import { matrix, packedMatrix } from './operands.js';
import type { Job } from './product-code.js';
import type { ProductForm } from './product-form.js';
import { type ProductChoice, type ProductKind, formsFor, portableForm } from './product-forms.js';
import { runJobs } from './run-jobs.js';
import { timeOf } from './time-of.js';

/** `[m, n, k]`. */
type Size = readonly [number, number, number];

/** Products by which the form for a kind of them is chosen. */
export interface Trial {
  kind: ProductKind;
  /** An odd size, to be right about. */
  checked: Size;
  /** A usual one, to be right about and fast. */
  timed: Size;
}

const standardTrials: readonly Trial[] = [
  { kind: 'large', checked: [131, 197, 45], timed: [512, 2304, 1152] },
  { kind: 'large, float16 weights', checked: [131, 197, 45], timed: [512, 2304, 1152] },
  { kind: 'few rows', checked: [5, 197, 131], timed: [8, 2304, 1152] },
  { kind: 'small', checked: [131, 197, 45], timed: [512, 384, 384] },
  { kind: 'small, float16 weights', checked: [131, 197, 45], timed: [512, 384, 384] },
];

export interface ChooseFormsOptions {
  /** Default: those that the device's features allow. */
  forms?: readonly ProductForm[];
  trials?: readonly Trial[];
  /** Milliseconds that `run` takes. Default: measured on the device. */
  clock?(gpu: Gpu, run: () => void, form: ProductForm): Promise<number>;
  /** Milliseconds after which nothing more is begun; kinds that are not reached stay with the portable form. Default 2000. */
  budget?: number;
}

/**
 * Chooses how products are computed: each form multiplies random matrices; of those that compile and agree with the
 * portable form, 1e-5 of the largest value or 2e-3 where operands are float16, the fastest is taken, if that is faster by a
 * twentieth.
 * @throws BackendError where a form has cost us the device
 */
export async function chooseForms(gpu: Gpu, { forms = formsFor(gpu.device), trials = standardTrials, clock = timeOf, budget = 2000 }: ChooseFormsOptions = {}): Promise<readonly ProductChoice[]> {
  const before = { ...counters };
  const end = performance.now() + budget;
  const choices: ProductChoice[] = [];
  for (const trial of trials) if (performance.now() <= end) choices.push(await chosen(gpu, trial, forms, clock, end));
  gpu.products.choices = choices;
  gpu.trim();
  Object.assign(counters, before);
  return choices;
}

async function chosen(gpu: Gpu, { kind, checked, timed }: Trial, forms: readonly ProductForm[], clock: NonNullable<ChooseFormsOptions['clock']>, end: number): Promise<ProductChoice> {
  const portable = portableForm(kind);
  const examples = [new Example(gpu, kind, checked, true), new Example(gpu, kind, timed, false)];
  const output = tf.zeros([1]);
  try {
    const target = gpu.buffer(output);
    const rivals = [portable, ...forms.filter((form) => form !== portable && (form.thin === true) === (kind === 'few rows') && examples.every((example) => form.takes(example.job(target))))];
    const refusals = await Promise.all(rivals.map((form) => refusal(gpu, () => examples.forEach((example) => runJobs(gpu, [example.job(target)], form)))));
    const tried: Record<string, string> = {};
    const times = new Map<ProductForm, number>();
    let expected: Float32Array[] | undefined;
    for (const [i, form] of rivals.entries()) {
      const late = form !== portable && performance.now() > end;
      const problem = refusals[i] ?? (late ? 'no time' : undefined);
      if (problem === undefined) {
        const values = [await examples[0]!.result(form), await examples[1]!.result(form)];
        const wrong = worst((expected ??= values), values);
        if (wrong <= (form.half === true ? 2e-3 : 1e-5)) times.set(form, Infinity);
        else tried[form.name] = `wrong by ${wrong.toPrecision(2)} of the largest value`;
      } else tried[form.name] = problem;
      if (!times.has(portable)) break; // a device without is not one to choose for
    }
    // twice in turn, as a device that wakes up is slow at first
    const turns = times.size > 1 ? [...times.keys(), ...times.keys()] : [];
    for (const form of turns) times.set(form, Math.min(times.get(form)!, await clock(gpu, () => runJobs(gpu, [examples[1]!.job(examples[1]!.target)], form), form)));
    let form = portable;
    for (const [rival, time] of times) {
      if (turns.length > 0) tried[rival.name] = `${time.toPrecision(3)} ms`;
      if (time < 0.95 * times.get(form)!) form = rival;
    }
    return { products: kind, form, tried };
  } finally {
    output.dispose();
    for (const example of examples) example.dispose();
  }
}

/** Random matrices to multiply. */
class Example {
  readonly #tensors: tf.Tensor[];
  readonly #transposed: boolean;

  constructor(
    readonly gpu: Gpu,
    readonly kind: ProductKind,
    readonly size: Size,
    /** Whether both are summed over their outer axis, where the kind allows it; else over the inner one. */
    transposed: boolean,
  ) {
    const [m, n, k] = size;
    const half = kind.endsWith('weights');
    this.#transposed = transposed && !half && kind !== 'few rows';
    const weight = half ? tf.tensor2d(repeated(n * Math.ceil(k / 2), 'int32'), [n, Math.ceil(k / 2)], 'int32') : tf.tensor2d(repeated(n * k, 'float32'), this.#transposed ? [k, n] : [n, k]);
    this.#tensors = [tf.tensor2d(repeated(m * k, 'float32'), this.#transposed ? [k, m] : [m, k]), weight, tf.tensor1d(repeated(n, 'float32')), tf.zeros([m, n])];
  }

  get target(): GPUBuffer {
    return this.gpu.buffer(this.#tensors[3]!);
  }

  job(buffer: GPUBuffer): Job {
    const [m, n, k] = this.size;
    const [x, weight, bias] = this.#tensors as [tf.Tensor, tf.Tensor, tf.Tensor];
    const summedInside = !this.#transposed;
    const operand = (info: tf.Tensor) => matrix(info, { outer: info.shape[0]!, inner: info.shape[1]!, summedInside });
    const b = weight.dtype === 'int32' ? packedMatrix(weight, undefined, { bits: 16, outer: n, inner: k }) : operand(weight);
    return { m, n, k, batch: 1, a: operand(x), b, bias: this.gpu.buffer(bias), steps: [], outputs: [{ after: 0, buffer }] };
  }

  async result(form: ProductForm): Promise<Float32Array> {
    const { backend } = this.gpu;
    const [m, n] = this.size;
    const output = tf.engine().makeTensorFromTensorInfo(this.gpu.output([m, n]));
    try {
      const buffer = this.gpu.buffer(output);
      // the pool may have handed out the right values
      backend.ensureCommandEncoderReady();
      backend.endComputePassEncoder();
      backend.commandEncoder!.clearBuffer(buffer);
      runJobs(this.gpu, [this.job(buffer)], form);
      return (await output.data()) as Float32Array;
    } finally {
      output.dispose();
    }
  }

  dispose(): void {
    tf.dispose(this.#tensors);
  }
}

const rng = createRng(0);
/** As many random values as a prime, so that no row begins as another does. */
const PRIME = 65_521;
const [normals, words] = [rng.normal(PRIME), rng.integers(-(2 ** 31), 2 ** 31, PRIME)];

/** Normal values, or words of two float16 values from 0.5 to 1 of either sign. */
function repeated<T extends 'float32' | 'int32'>(count: number, type: T): Float32Array | Int32Array {
  const values = type === 'float32' ? new Float32Array(count) : new Int32Array(count);
  for (let i = 0; i < count; i++) values[i] = type === 'float32' ? normals[i % PRIME]! : (words[i % PRIME]! & 0x83ff_83ff) | 0x3800_3800;
  return values;
}

/** The largest difference, relative to the largest value; infinite where nothing was computed. */
function worst(expected: readonly Float32Array[], got: readonly Float32Array[]): number {
  return Math.max(
    ...expected.map((list, i) => {
      let [largest, difference] = [0, 0];
      const own = got[i]!;
      // there are millions: no iterator
      for (let j = 0; j < list.length; j++) {
        largest = Math.max(largest, Math.abs(list[j]!));
        difference = Math.max(difference, Math.abs(list[j]! - own[j]!));
      }
      return largest > 0 && difference >= 0 ? difference / largest : Infinity;
    }),
  );
}

/** Why a form does not compile, if it does not. Runs nothing. */
async function refusal(gpu: Gpu, work: () => void): Promise<string | undefined> {
  gpu.device.pushErrorScope('validation');
  const compiled = gpu.pipelines.compileAhead(work, {}).then(() => undefined, (error: unknown) => (error instanceof Error ? error.message : String(error)));
  const invalid = await gpu.device.popErrorScope();
  const problem = await compiled;
  const message = invalid?.message ?? problem;
  return message === undefined ? undefined : `does not compile: ${message.slice(0, 300)}`;
}
