import { CheckpointError } from '@tinyfusion/core';
import { bytesSource, toFloat32, writableTensor, writeSafetensors } from '@tinyfusion/weights';
import protobuf, { type INamespace } from 'protobufjs/light.js';
import { describe, expect, it } from 'vitest';
import { inceptionShapes, openInceptionWeights, readInceptionGraph } from '../src/index.js';

/** TensorFlow's messages as graph.proto, node_def.proto, attr_value.proto, tensor.proto and tensor_shape.proto number them. */
const Graph = protobuf.Root.fromJSON({
  nested: {
    GraphDef: { fields: { node: { rule: 'repeated', type: 'NodeDef', id: 1 }, versions: { type: 'VersionDef', id: 4 }, version: { type: 'int32', id: 3 } } },
    VersionDef: { fields: { producer: { type: 'int32', id: 1 } } },
    NodeDef: { fields: { name: { type: 'string', id: 1 }, op: { type: 'string', id: 2 }, input: { rule: 'repeated', type: 'string', id: 3 }, device: { type: 'string', id: 4 }, attr: { keyType: 'string', type: 'AttrValue', id: 5 } } },
    AttrValue: { fields: { i: { type: 'int64', id: 3 }, type: { type: 'int32', id: 6 }, shape: { type: 'TensorShapeProto', id: 7 }, tensor: { type: 'TensorProto', id: 8 } } },
    TensorProto: { fields: { dtype: { type: 'int32', id: 1 }, tensor_shape: { type: 'TensorShapeProto', id: 2 }, version_number: { type: 'int32', id: 3 }, tensor_content: { type: 'bytes', id: 4 }, float_val: { rule: 'repeated', type: 'float', id: 5, options: { packed: true } }, string_val: { rule: 'repeated', type: 'bytes', id: 8 } } },
    TensorShapeProto: { fields: { dim: { rule: 'repeated', type: 'Dim', id: 2 }, unknown_rank: { type: 'bool', id: 3 } } },
    Dim: { fields: { size: { type: 'int64', id: 1 }, name: { type: 'string', id: 2 } } },
  },
} as INamespace).lookupType('GraphDef');

/** Where each block's convolutions lie in the graph of 2015, in the order of `inceptionShapes`. */
const branches = {
  A: ['conv', 'tower/conv', 'tower/conv_1', 'tower_1/conv', 'tower_1/conv_1', 'tower_1/conv_2', 'tower_2/conv'],
  B: ['conv', 'tower/conv', 'tower/conv_1', 'tower/conv_2'],
  C: ['conv', 'tower/conv', 'tower/conv_1', 'tower/conv_2', 'tower_1/conv', 'tower_1/conv_1', 'tower_1/conv_2', 'tower_1/conv_3', 'tower_1/conv_4', 'tower_2/conv'],
  D: ['tower/conv', 'tower/conv_1', 'tower_1/conv', 'tower_1/conv_1', 'tower_1/conv_2', 'tower_1/conv_3'],
  E: ['conv', 'tower/conv', 'tower/mixed/conv', 'tower/mixed/conv_1', 'tower_1/conv', 'tower_1/conv_1', 'tower_1/mixed/conv', 'tower_1/mixed/conv_1', 'tower_2/conv'],
};
const blocks = [['mixed', 'A'], ['mixed_1', 'A'], ['mixed_2', 'A'], ['mixed_3', 'B'], ['mixed_4', 'C'], ['mixed_5', 'C'], ['mixed_6', 'C'], ['mixed_7', 'C'], ['mixed_8', 'D'], ['mixed_9', 'E'], ['mixed_10', 'E']] as const;
const scopes = ['conv', 'conv_1', 'conv_2', 'conv_3', 'conv_4', ...blocks.flatMap(([block, kind]) => branches[kind].map((branch) => `${block}/${branch}`))];
const parts: Record<string, string> = { 'conv.weight': 'conv2d_params', 'bn.weight': 'batchnorm/gamma', 'bn.bias': 'batchnorm/beta', 'bn.running_mean': 'batchnorm/moving_mean', 'bn.running_var': 'batchnorm/moving_variance' };

interface Constant {
  shape: number[];
  content?: Uint8Array;
  floats?: number[];
  dtype?: number;
  op?: string;
}

/** Distinct values at every place of every tensor: exact in float32. */
const valueAt = (tensor: number, i: number): number => ((tensor * 7919 + i * 104_729) % 16_777_213) / 1024;

/** The 472 tensors as TensorFlow has them: kernels `[h, w, in, out]`. */
function nodes(): Map<string, Constant> {
  const convolutions = [...inceptionShapes().keys()].filter((name) => name.endsWith('.conv.weight')).map((name) => name.slice(0, -'.conv.weight'.length));
  expect(convolutions.length).toBe(scopes.length);
  const out = new Map<string, Constant>();
  for (const [t, [name, shape]] of [...inceptionShapes()].entries()) {
    const convolution = /^(.+)\.(conv|bn)\./.exec(name)?.[1];
    const node = convolution === undefined ? { 'fc.weight': 'softmax/weights', 'fc.bias': 'softmax/biases' }[name]! : `${scopes[convolutions.indexOf(convolution)]}/${parts[name.slice(convolution.length + 1)]}`;
    const size = shape.reduce((a, b) => a * b, 1);
    const values = new Float32Array(size);
    const [o = 1, i = 1, h = 1, w = 1] = shape;
    if (shape.length === 1) for (let at = 0; at < size; at++) values[at] = valueAt(t, at);
    else for (let at = 0; at < size; at++) values[(Math.floor(at / (i * h * w)) % o) + o * ((Math.floor(at / (h * w)) % i) + i * ((at % w) + w * (Math.floor(at / w) % h)))] = valueAt(t, at);
    out.set(node, { shape: shape.length === 4 ? [h, w, i, o] : shape.toReversed(), content: new Uint8Array(values.buffer) });
  }
  return out;
}

function graph(constants: Iterable<[string, Constant]>): Uint8Array {
  const list = [...constants].map(([name, { shape, content, floats, dtype = 1, op = 'Const' }]) => ({
    name,
    op,
    attr: { dtype: { type: dtype }, value: { tensor: { dtype, tensor_shape: { dim: shape.map((size) => ({ size })) }, ...(content === undefined ? {} : { tensor_content: content }), ...(floats === undefined ? {} : { float_val: floats }) } } },
  }));
  const others = [
    { name: 'DecodeJpeg/contents', op: 'Const', attr: { value: { tensor: { dtype: 7, tensor_shape: {}, string_val: [new Uint8Array([1, 2])] } } } },
    { name: 'conv', op: 'Conv2D', input: ['Mul', 'conv/conv2d_params'], device: '/cpu:0', attr: { T: { type: 1 } } },
  ];
  return Graph.encode(Graph.fromObject({ node: [others[0], ...list, others[1]], versions: { producer: 8 } })).finish();
}

const all = nodes();
const file = graph(all);
const changed = (node: string, change: Partial<Constant>) => bytesSource(graph(new Map(all).set(node, { ...all.get(node)!, ...change })), 'graph.pb');

describe('readInceptionGraph', () => {
  it('gives every tensor its name and layout of PyTorch', async () => {
    const state = await readInceptionGraph(bytesSource(file));
    expect(new Map([...state.tensors].map(([name, { shape }]) => [name, shape]))).toEqual(inceptionShapes());
    for (const [t, [name, record]] of [...state.tensors].entries()) {
      const values = await toFloat32(record);
      expect(record.dtype).toBe('F32');
      let wrong = 0;
      for (let i = 0; i < values.length; i++) if (values[i] !== valueAt(t, i)) wrong++;
      expect([name, wrong]).toEqual([name, 0]);
    }
  });

  it('takes values that are listed, the last one repeated', async () => {
    const state = await readInceptionGraph(changed('conv/batchnorm/gamma', { content: new Uint8Array(0), floats: [0.5, 2] }));
    expect([...(await toFloat32(state.tensors.get('Conv2d_1a_3x3.bn.weight')!))]).toEqual([0.5, ...Array.from({ length: 31 }, () => 2)]);
    await expect(readInceptionGraph(changed('conv/batchnorm/gamma', { content: new Uint8Array(0), floats: [] }))).rejects.toThrow('graph.pb: conv/batchnorm/gamma holds 0 values, expected 32');
    await expect(readInceptionGraph(changed('conv/batchnorm/gamma', { content: new Uint8Array(0), floats: Array.from({ length: 33 }, () => 1) }))).rejects.toThrow('holds 33 values, expected 32');
  });

  it('skips what is no node, wherever it is', async () => {
    const versions = Graph.encode(Graph.fromObject({ versions: { producer: 8 } })).finish();
    const { tensors } = await readInceptionGraph(bytesSource(Buffer.concat([versions, file])));
    expect(tensors.size).toBe(472);
  });

  it('names what is missing', async () => {
    const fewer = new Map(all);
    fewer.delete('mixed_8/tower_1/conv_2/conv2d_params');
    const error = await readInceptionGraph(bytesSource(graph(fewer), 'graph.pb')).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(CheckpointError);
    expect(String(error)).toContain('graph.pb lacks 1 of the 472 constants of FID\'s Inception: mixed_8/tower_1/conv_2/conv2d_params; the file is');
    await expect(readInceptionGraph(changed('softmax/biases', { op: 'Placeholder' }))).rejects.toThrow('lacks 1 of the 472');
    await expect(readInceptionGraph(bytesSource(graph([])))).rejects.toThrow('lacks 472 of the 472 constants of FID\'s Inception: conv/conv2d_params, conv/batchnorm/gamma, conv/batchnorm/beta, conv/batchnorm/moving_mean, conv/batchnorm/moving_variance, conv_1/conv2d_params, conv_1/batchnorm/gamma, conv_1/batchnorm/beta, …');
  });

  it('refuses other shapes, types and sizes', async () => {
    const [kernel, biases] = [all.get('conv/conv2d_params')!, all.get('softmax/biases')!];
    await expect(readInceptionGraph(changed('conv/conv2d_params', { shape: kernel.shape.toReversed() }))).rejects.toThrow('graph.pb: conv/conv2d_params is [32, 3, 3, 3], expected [3, 3, 3, 32]');
    await expect(readInceptionGraph(changed('softmax/biases', { shape: [-1008] }))).rejects.toThrow('is [-1008], expected [1008]');
    await expect(readInceptionGraph(changed('softmax/biases', { shape: [2 ** 40] }))).rejects.toThrow('is [1099511627776], expected [1008]');
    await expect(readInceptionGraph(changed('softmax/biases', { dtype: 2 }))).rejects.toThrow("graph.pb: softmax/biases is of TensorFlow's type 2, expected 1 (float)");
    await expect(readInceptionGraph(changed('softmax/biases', { content: biases.content!.slice(4) }))).rejects.toThrow('holds 1007 values, expected 1008');
    await expect(readInceptionGraph(changed('softmax/biases', { content: biases.content!.slice(1) }))).rejects.toThrow('holds 1007.75 values, expected 1008');
    await expect(readInceptionGraph(bytesSource(graph([...all, ['softmax/biases', biases]]), 'graph.pb'))).rejects.toThrow('two nodes of the name softmax/biases');
    await expect(readInceptionGraph({ ...bytesSource(file, 'graph.pb'), size: 2 ** 28 })).rejects.toThrow('graph.pb has 268435456 bytes');
  });

  it('refuses files that are cut off or are something else', async () => {
    const tail = file.length - 40;
    for (const length of [1, 7, 40, 1000, 1 << 20, tail]) await expect(readInceptionGraph(bytesSource(file.subarray(0, length), 'cut.pb')), `${length}`).rejects.toThrow(CheckpointError);
    for (const bytes of [[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], [0x0a, 0x04, 0x2a, 0x7f, 0, 0], [0xff], Array.from({ length: 64 }, () => 0xff), []]) await expect(readInceptionGraph(bytesSource(Uint8Array.from(bytes)))).rejects.toThrow(CheckpointError);
  });
});

describe('openInceptionWeights', () => {
  it('tells the graph from checkpoints', async () => {
    const { tensors } = await openInceptionWeights(bytesSource(file));
    expect(tensors.size).toBe(472);
    const safetensors = writeSafetensors([['fc.bias', writableTensor(Float32Array.of(1, 2), [2], 'F32')]]);
    expect([...(await openInceptionWeights(bytesSource(safetensors))).tensors.keys()]).toEqual(['fc.bias']);
    // a header of 10 modulo 256 bytes begins as a graph does
    const size = 8 + Number(new DataView(safetensors.buffer).getBigUint64(0, true));
    const wide = new Uint8Array(safetensors.length - size + 8 + 266).fill(0x20, 8);
    wide.set([0x0a, 0x01]);
    wide.set(safetensors.subarray(8, size), 8);
    wide.set(safetensors.subarray(size), 8 + 266);
    expect([...(await toFloat32((await openInceptionWeights(bytesSource(wide))).tensors.get('fc.bias')!))]).toEqual([1, 2]);
  });

  it('says what to do with the archive, and refuses the rest', async () => {
    await expect(openInceptionWeights(bytesSource(Uint8Array.of(0x1f, 0x8b, 8, 0), 'inception-2015-12-05.tgz'))).rejects.toThrow('inception-2015-12-05.tgz is a gzip archive; unpack');
    await expect(openInceptionWeights(bytesSource(new Uint8Array(0)))).rejects.toThrow(CheckpointError);
    await expect(openInceptionWeights(bytesSource(new TextEncoder().encode('hello, this is text')))).rejects.toThrow(CheckpointError);
  });
});
