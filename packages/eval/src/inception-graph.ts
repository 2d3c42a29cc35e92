import { CheckpointError } from '@tinyfusion/core';
import { type Source, type StateDict, type TensorRecord, decodeFloat32, readCheckpoint, weightsOf } from '@tinyfusion/weights';
import { inceptionShapes } from './inception.js';

/**
 * The weights of FID's Inception from whichever file is at hand, told by its contents: the TensorFlow graph
 * `classify_image_graph_def.pb`, or `pt_inception-2015-12-05` as `.pth` or safetensors. For `Inception.load`.
 *
 * @throws CheckpointError where it is none of them, or is damaged
 */
export async function openInceptionWeights(source: Source): Promise<StateDict> {
  const start = await source.read(0, Math.min(16, source.size));
  if (start[0] === 0x1f && start[1] === 0x8b) throw new CheckpointError(`${source.name} is a gzip archive; unpack inception-2015-12-05.tgz and give the ${FILE} that is in it`);
  // a graph begins with a node, whose length and name follow; safetensors whose header is 10 modulo 256 long have a brace at 8
  if (start[0] === 0x0a && start[8] !== 0x7b) return readInceptionGraph(source);
  return weightsOf(await readCheckpoint(source));
}

/**
 * Reads the frozen TensorFlow 1 graph of 2015-12-05, from which OpenAI's `evaluator.py` and the first FID take their
 * Inception, as the state dict of `pt_inception-2015-12-05`: its constants under PyTorch's names, `[h, w, in, out]`
 * kernels as `[out, in, h, w]`. The whole file (95 MB) stays in memory for as long as the state dict does.
 *
 * Decoders are compiled at run time (protobufjs): a page whose content security policy forbids `unsafe-eval` converts
 * the file beforehand.
 *
 * @throws CheckpointError where the file is no such graph: broken, a node missing, of another type or shape
 */
export async function readInceptionGraph(source: Source): Promise<StateDict> {
  if (source.size > LARGEST) throw new CheckpointError(`${source.name} has ${source.size} bytes, expected about 95 million: the file is ${FILE}`);
  const shapes = inceptionShapes();
  const wanted = new Map(tensorflowNames(shapes).map(([name, node]) => [node, name]));
  const tensors = new Map<string, TensorRecord>();
  for (const [node, constant] of await constants(source)) {
    const name = wanted.get(node);
    if (name === undefined) continue;
    if (tensors.has(name)) throw new CheckpointError(`${source.name} has two nodes of the name ${node}; the file is damaged`);
    tensors.set(name, recordOf(constant, shapes.get(name)!, `${source.name}: ${node}`));
  }
  const missing = [...wanted].filter(([, name]) => !tensors.has(name)).map(([node]) => node);
  if (missing.length > 0) throw new CheckpointError(`${source.name} lacks ${missing.length} of the ${wanted.size} constants of FID's Inception: ${missing.slice(0, 8).join(', ')}${missing.length > 8 ? ', …' : ''}; the file is ${FILE} of 2015-12-05`);
  return { tensors: new Map([...shapes.keys()].map((name) => [name, tensors.get(name)!])), metadata: new Map() };
}

const FILE = 'classify_image_graph_def.pb';
const LARGEST = 2 ** 27;

/**
 * The constant in TensorFlow's graph for each tensor, by PyTorch's name. A block's branches of one convolution are its
 * `conv`, the longer ones and the pooled one are towers in order, and convolutions are counted from nothing: `conv`,
 * `conv_1`.
 */
function tensorflowNames(shapes: ReadonlyMap<string, readonly number[]>): [name: string, node: string][] {
  const convolutions = [...shapes.keys()].flatMap((key) => (key.endsWith('.conv.weight') ? [key.slice(0, -'.conv.weight'.length)] : []));
  const blocks = [...new Set(convolutions.flatMap((name) => (name.includes('.') ? [name.split('.')[0]!] : [])))];
  const towers = new Map<string, string[]>();
  const scopeOf = (convolution: string, index: number): string => {
    const [block, branch] = convolution.split('.') as [string, string | undefined];
    if (branch === undefined) return counted('conv', index);
    const mixed = counted('mixed', blocks.indexOf(block));
    const [, path, position, half] = /^(.+?)(?:_(\d)([ab]?))?$/.exec(branch) as unknown as [string, string, string | undefined, string | undefined];
    if (position === undefined && path !== 'branch_pool') return `${mixed}/conv`;
    const known = towers.get(block) ?? [];
    if (!known.includes(path)) towers.set(block, [...known, path]);
    const tower = `${mixed}/${counted('tower', towers.get(block)!.indexOf(path))}`;
    return half ? `${tower}/mixed/${half === 'a' ? 'conv' : 'conv_1'}` : `${tower}/${counted('conv', position === undefined ? 0 : Number(position) - 1)}`;
  };
  return [
    ...convolutions.flatMap((name, index): [string, string][] => {
      const scope = scopeOf(name, index);
      return [[`${name}.conv.weight`, `${scope}/conv2d_params`], ...Object.entries(batchNorm).map(([ours, theirs]): [string, string] => [`${name}.bn.${ours}`, `${scope}/batchnorm/${theirs}`])];
    }),
    ['fc.weight', 'softmax/weights'],
    ['fc.bias', 'softmax/biases'],
  ];
}

const batchNorm = { weight: 'gamma', bias: 'beta', running_mean: 'moving_mean', running_var: 'moving_variance' } as const;

const counted = (name: string, index: number): string => (index === 0 ? name : `${name}_${index}`);

/** Fields of TensorFlow's messages that a constant needs, by number (graph, node_def, attr_value, tensor, tensor_shape). */
const messages = {
  nested: {
    NodeDef: { fields: { name: { type: 'string', id: 1 }, op: { type: 'string', id: 2 }, attr: { keyType: 'string', type: 'AttrValue', id: 5 } } },
    AttrValue: { fields: { tensor: { type: 'TensorProto', id: 8 } } },
    TensorProto: { fields: { dtype: { type: 'int32', id: 1 }, shape: { type: 'TensorShapeProto', id: 2 }, content: { type: 'bytes', id: 4 }, floats: { rule: 'repeated', type: 'float', id: 5 } } },
    TensorShapeProto: { fields: { dim: { rule: 'repeated', type: 'Dim', id: 2 } } },
    Dim: { fields: { size: { type: 'int64', id: 1 } } },
  },
};

interface TensorProto {
  dtype: number;
  shape: { dim: { size: { toString(): string } }[] } | null;
  content: Uint8Array;
  floats: number[];
}

/** Constants of a graph by node; one node is decoded at a time, so that a hostile file costs no more than its size. */
async function constants(source: Source): Promise<[node: string, TensorProto][]> {
  const { default: protobuf } = await import('protobufjs/light.js');
  const NodeDef = protobuf.Root.fromJSON(messages).lookupType('NodeDef');
  const bytes = await source.read(0, source.size);
  const found: [string, TensorProto][] = [];
  try {
    const reader = protobuf.Reader.create(bytes);
    while (reader.pos < reader.len) {
      const tag = reader.uint32();
      if (tag !== NODE) {
        reader.skipType(tag & 7);
        continue;
      }
      const { name, op, attr } = NodeDef.decode(reader.bytes()) as unknown as { name: string; op: string; attr: Record<string, { tensor: TensorProto | null }> };
      const tensor = op === 'Const' && Object.hasOwn(attr, 'value') ? attr['value']!.tensor : null;
      if (tensor !== null) found.push([name, tensor]);
    }
  } catch (cause) {
    throw new CheckpointError(`${source.name} is no TensorFlow graph, or is damaged (${cause instanceof Error ? cause.message : String(cause)}); expected ${FILE}, download it again`, { cause });
  }
  return found;
}

/** Tag of `GraphDef.node`: field 1, with a length. */
const NODE = (1 << 3) | 2;
/** `DT_FLOAT` */
const FLOAT = 1;

function recordOf({ dtype, shape, content, floats }: TensorProto, expected: readonly number[], where: string): TensorRecord {
  const stored = (shape?.dim ?? []).map(({ size }) => Number(String(size)));
  const layout = expected.length === 4 ? [expected[2]!, expected[3]!, expected[1]!, expected[0]!] : expected.toReversed();
  if (dtype !== FLOAT) throw new CheckpointError(`${where} is of TensorFlow's type ${dtype}, expected ${FLOAT} (float)`);
  if (String(stored) !== String(layout)) throw new CheckpointError(`${where} is [${stored.join(', ')}], expected [${layout.join(', ')}]`);
  const count = expected.reduce((a, b) => a * b, 1);
  const held = content.length > 0 ? content.length / 4 : floats.length;
  // a list of values may end early: the last one is repeated
  if (content.length > 0 ? held !== count : held < 1 || held > count) throw new CheckpointError(`${where} holds ${held} values, expected ${count}; the file is damaged`);
  const values = (): Float32Array => (content.length > 0 ? decodeFloat32(content, 'F32') : Float32Array.from({ length: count }, (_, i) => floats[Math.min(i, held - 1)]!));
  return {
    dtype: 'F32',
    shape: expected,
    read: async () => {
      const own = expected.length === 1 ? values() : outputsFirst(values(), expected);
      return new Uint8Array(own.buffer, own.byteOffset, own.byteLength);
    },
  };
}

/** `[…, in, out]` to `[out, in, …]`. */
function outputsFirst(values: Float32Array, [outputs, inputs]: readonly number[]): Float32Array {
  const space = values.length / (outputs! * inputs!);
  const moved = new Float32Array(values.length);
  let at = 0;
  for (let s = 0; s < space; s++) for (let i = 0; i < inputs!; i++) for (let o = 0; o < outputs!; o++) moved[(o * inputs! + i) * space + s] = values[at++]!;
  return moved;
}
