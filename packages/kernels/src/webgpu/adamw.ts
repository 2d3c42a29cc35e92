import type * as tf from '@tensorflow/tfjs-core';
import { Bindings } from './bindings.js';
import { type Kernel, sizeOf } from './call.js';
import { type Gpu, spread } from './gpu.js';
import { Pending } from './pending.js';

const ATTRIBUTES = ['beta1', 'beta2', 'epsilon', 'decay', 'rate', 'root', 'gradientScale', 'averageDecay'] as const;
type Numbers = Record<(typeof ATTRIBUTES)[number], number>;

/** Elements of a workgroup. */
const SHARE = 1024;
/** Updates that wait at most: what they hold cannot be freed. */
const MOST_WAITING = 16;

/** Steps that wait, by device: several parameters are updated in one dispatch. */
const waiting = new WeakMap<Gpu, Update[]>();

/**
 * One parameter's step. It waits, and when it runs, its inputs are mostly held by nobody else, because the optimiser has
 * let go of them: then it works in place, and the outputs take their buffers.
 */
class Update extends Pending {
  #outputs: tf.TensorInfo[] = [];
  /** In the place of outputs that nobody wants. */
  readonly #unwanted: GPUBuffer[] = [];

  constructor(
    gpu: Gpu,
    readonly state: readonly tf.TensorInfo[],
    readonly gradient: tf.TensorInfo,
    readonly numbers: Numbers,
  ) {
    super(gpu);
    this.hold(...state, gradient);
  }

  start(): tf.TensorInfo[] {
    this.#outputs = this.state.map(({ shape }) => this.result(shape));
    return this.#outputs;
  }

  override get due(): undefined {
    return undefined;
  }

  protected compute(): void {
    runUpdates(this.gpu, waiting.get(this.gpu)!.splice(0));
  }

  /** Buffers of parameter, moments and average to be updated in place. */
  take(): GPUBuffer[] {
    return this.state.map((input, i) => {
      const { backend } = this.gpu;
      const source = this.gpu.buffer(input);
      const data = backend.tensorMap.get(input.dataId);
      const output = this.#outputs[i]!.dataId;
      if (!this.live.has(output)) {
        const spare = this.gpu.scratch(sizeOf(input.shape));
        this.#unwanted.push(spare);
        return this.#copy(source, spare);
      }
      if (data.refCount > 1 || data.external === true || data.dtype !== 'float32') return this.#copy(source, this.fill(output));
      data.resource = null;
      this.live.delete(output);
      return this.gpu.fill(output, source);
    });
  }

  done(): void {
    for (const buffer of this.#unwanted) this.gpu.free(buffer);
    this.settled();
  }

  #copy(source: GPUBuffer, target: GPUBuffer): GPUBuffer {
    const { backend } = this.gpu;
    backend.ensureCommandEncoderReady();
    backend.endComputePassEncoder();
    backend.commandEncoder!.copyBufferToBuffer(source, 0, target, 0, target.size);
    return target;
  }
}

export const adamw: Kernel = (call) => {
  const { gpu } = call;
  const { average } = call.inputs;
  const state = [call.info('parameter'), call.info('m'), call.info('v'), ...(average === undefined ? [] : [average])];
  const numbers = Object.fromEntries(ATTRIBUTES.map((name) => [name, call.attributes[name] ?? 0])) as Numbers;
  let queue = waiting.get(gpu);
  if (queue === undefined) waiting.set(gpu, (queue = []));
  // those before this one: by now the optimiser has let go of what they replace
  const again = state.some(({ dataId }) => gpu.pending.get(dataId) instanceof Update);
  if (again || queue.length >= MOST_WAITING) runUpdates(gpu, queue.splice(0));
  const update = new Update(gpu, state, call.info('gradient'), numbers);
  queue.push(update);
  return update.start();
};

function runUpdates(gpu: Gpu, updates: Update[]): void {
  const wanted = updates.filter((update) => update.live.size > 0);
  while (wanted.length > 0) {
    const [first] = wanted;
    // as many as one dispatch can bind
    const most = Math.max(1, Math.floor(gpu.mostBindings / (first!.state.length + 1)));
    const rest = wanted.findIndex((update) => update.state.length !== first!.state.length || ATTRIBUTES.some((name) => update.numbers[name] !== first!.numbers[name]));
    runGroup(gpu, wanted.splice(0, Math.min(most, rest === -1 ? most : rest)));
  }
}

function runGroup(gpu: Gpu, updates: readonly Update[]): void {
  for (const { gradient } of updates) gpu.buffer(gradient);
  const bindings = new Bindings();
  const numbers: Record<string, number> = {};
  let end = 0;
  const bodies = updates.map((update, i) => {
    const count = sizeOf(update.gradient.shape);
    const gradient = bindings.read(gpu.buffer(update.gradient));
    const [p, m, v, average] = update.take().map((buffer) => bindings.write(buffer)) as [string, string, string, string | undefined];
    numbers[`count${i}`] = count;
    numbers[`start${i}`] = end;
    numbers[`end${i}`] = end += Math.ceil(count / SHARE);
    return `if (share < u.end${i}) {
    let stop = min(u.count${i}, (share - u.start${i} + 1u) * ${SHARE}u);
    for (var i = (share - u.start${i}) * ${SHARE}u + thread; i < stop; i += 256u) {
      let g = ${gradient}[i] * f.gradientScale;
      let m = ${m}[i] * f.beta1 + g * (1.0 - f.beta1);
      let v = ${v}[i] * f.beta2 + g * g * (1.0 - f.beta2);
      ${m}[i] = m;
      ${v}[i] = v;
      let p = ${p}[i] * f.decay - m * f.rate / (sqrt(v) * f.root + f.epsilon);
      ${p}[i] = p;
      ${average === undefined ? '' : `${average}[i] += (p - ${average}[i]) * (1.0 - f.averageDecay);`}
    }
  }`;
  });
  gpu.pipelines.run({
    name: 'adamw',
    variant: `${updates.map(({ state }) => state.length).join()}`,
    bindings,
    numbers,
    reals: updates[0]!.numbers,
    workgroup: 256,
    groups: spread(end),
    code: () => ({ main: `let share = group.x + group.y * groups.x;\n  ${bodies.join(' else ')}` }),
  });
  for (const update of updates) update.done();
}
