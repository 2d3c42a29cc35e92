import { CheckpointError, invariant } from '@tinyfusion/core';
import { type Module, readState } from '@tinyfusion/nn';
import { encodeFloat32 } from '@tinyfusion/weights';
import type * as tf from '@tensorflow/tfjs-core';
import type { Attribute, Dimension, ElementType, Node, ValueInfo } from './proto.js';

/** A tensor in a graph, by its name. */
export type Value = string & { readonly graph?: never };

/** A tensor that is stored with the graph; its bytes are read, little-endian, when they are written. */
export interface Initialiser {
  readonly name: string;
  readonly type: ElementType;
  readonly shape: readonly number[];
  /** Bytes it takes. */
  readonly size: number;
  /** @throws CheckpointError where a value does not fit the type */
  read(): Promise<Uint8Array>;
}

/** Values on their way into a graph: how to change those of a parameter, whose shape is the second argument. */
export type Arrange = (values: Float32Array, shape: readonly number[]) => Float32Array;

/**
 * Collects the nodes and tensors of one graph. Values have names, nodes are in the order of their making, weights are
 * called what the module's state dict calls them, and are not read before the file is written.
 */
export class GraphBuilder {
  readonly nodes: Node[] = [];
  readonly inputs: ValueInfo[] = [];
  readonly outputs: ValueInfo[] = [];
  readonly initialisers = new Map<string, Initialiser>();
  readonly #paths: ReadonlyMap<Module, string>;
  readonly #counts = new Map<string, number>();

  /**
   * @param root the model, whose paths name the weights
   * @param dtype of weights and maths
   */
  constructor(
    readonly root: Module,
    readonly dtype: 'F32' | 'F16',
  ) {
    this.#paths = new Map([...root.namedModules()].map(([path, module]) => [module, path]));
  }

  /** An input of the graph. Axes that are named may have any size. */
  input(name: string, type: 'F32' | 'I32', shape: readonly Dimension[]): Value {
    this.inputs.push({ name, type, shape });
    return name;
  }

  /** Declares what a graph puts out, as float32. */
  output(name: string, value: Value, shape: readonly Dimension[]): void {
    this.nodes.push({ name: `output/${name}`, opType: this.dtype === 'F16' ? 'Cast' : 'Identity', input: [value], output: [name], attributes: this.dtype === 'F16' ? { to: 1 } : {} });
    this.outputs.push({ name, type: 'F32', shape });
  }

  /** A node with one output. */
  node(opType: string, input: readonly Value[], attributes: Readonly<Record<string, Attribute>> = {}): Value {
    return this.nodeOf(1, opType, input, attributes)[0]!;
  }

  /** A node with `outputs` outputs. */
  nodeOf(outputs: number, opType: string, input: readonly Value[], attributes: Readonly<Record<string, Attribute>> = {}): Value[] {
    const count = this.#counts.get(opType) ?? 0;
    this.#counts.set(opType, count + 1);
    const name = `${opType}_${count}`;
    const output = Array.from({ length: outputs }, (_, i) => (outputs === 1 ? `${name}/output` : `${name}/output_${i}`));
    this.nodes.push({ name, opType, input, output, attributes });
    return output;
  }

  /** Integers, e.g. a shape: `[count]`. */
  integers(values: readonly number[]): Value {
    const bytes = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    return this.stored(`integers/${values.join('_')}`, 'I64', [values.length], bytes);
  }

  /** A single int32. */
  integer32(value: number): Value {
    return this.stored(`int32/${value}`, 'I32', [], new Uint8Array(Int32Array.of(value).buffer));
  }

  /** A number, of the graph's type unless said otherwise. */
  scalar(value: number, type: 'F32' | 'F16' = this.dtype): Value {
    return this.floats(`${type === 'F32' ? 'float32' : 'float16'}/${value}`, Float32Array.of(value), [], type);
  }

  /** Numbers that belong to no parameter. The same name stands for the same values. */
  floats(name: string, values: Float32Array, shape: readonly number[], type: 'F32' | 'F16' = this.dtype): Value {
    return this.stored(name, type, shape, encodeFloat32(values, type));
  }

  private stored(name: string, type: ElementType, shape: readonly number[], bytes: Uint8Array): Value {
    if (!this.initialisers.has(name)) this.initialisers.set(name, { name, type, shape, size: bytes.length, read: async () => bytes });
    return name;
  }

  /** The path of a module below the root. */
  pathOf(module: Module): string {
    const path = this.#paths.get(module);
    invariant(path, `a ${module.constructor.name} that is not part of the ${this.root.constructor.name}`);
    return path;
  }

  /**
   * A parameter of a module as a stored tensor, called what the state dict calls it.
   *
   * @param owner the module whose field it is
   * @param shape as stored, after `arrange`
   * @param options `arrange`: default as they are; `type`: default the graph's
   */
  parameter(owner: Module, field: string, shape: readonly number[], { arrange = (values) => values, type = this.dtype }: { arrange?: Arrange; type?: 'F32' | 'F16' } = {}): Value {
    const path = this.pathOf(owner);
    const name = path === '' ? field : `${path}.${field}`;
    const size = shape.reduce((a, b) => a * b, 1) * (type === 'F16' ? 2 : 4);
    const read = async (): Promise<Uint8Array> => {
      const { values, shape: held } = await parameterOf(owner, field);
      const arranged = arrange(values, held);
      invariant(arranged.length * (type === 'F16' ? 2 : 4) === size, `${name} has ${arranged.length} values, its stored shape is [${shape.join(', ')}]`);
      if (type === 'F16') checkRange(name, arranged);
      return encodeFloat32(arranged, type);
    };
    // a norm may be used in two places, a weight in two layouts may not
    const known = this.initialisers.get(name);
    invariant(known === undefined || String(known.shape) === String(shape), `${name} is stored in two shapes`);
    if (known === undefined) this.initialisers.set(name, { name, type, shape, size, read });
    return name;
  }
}

/** A parameter's values, expanded where the layer holds them packed; nothing else of the model is read. */
async function parameterOf(owner: Module, field: string): Promise<{ shape: readonly number[]; values: Float32Array }> {
  const variable = (owner as unknown as Record<string, tf.Variable>)[field];
  invariant(variable, `${owner.constructor.name} has no parameter ${field}`);
  if (variable.dtype === 'float32') return { shape: variable.shape, values: await variable.data<'float32'>() };
  const expanded = (await readState(owner)).get(field);
  invariant(expanded, `${owner.constructor.name}.${field} is ${variable.dtype}`);
  return expanded;
}

function checkRange(name: string, values: Float32Array): void {
  const largest = values.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
  // 65,520 is the first magnitude that rounds to infinity
  if (!(largest < 65_520)) throw new CheckpointError(`${name} has a value of magnitude ${largest}, which float16 cannot hold; export it with dtype 'F32'`);
}
