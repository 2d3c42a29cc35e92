import type { Type } from 'protobufjs';

/** Element types of ONNX's tensors, by name: the numbers of `TensorProto.DataType`. */
export const elementType = { F32: 1, I32: 6, I64: 7, BOOL: 9, F16: 10 } as const;

/** Element types that our graphs use. */
export type ElementType = keyof typeof elementType;

/** An axis of an input or output: its size, or the name under which it may be any. */
export type Dimension = number | string;

/** A number, integers, or a word that belongs to a node; numbers are floats where `float` says so, else integers. */
export type Attribute = number | readonly number[] | string | { readonly float: number };

/** `NodeProto` */
export interface Node {
  readonly name: string;
  readonly opType: string;
  readonly input: readonly string[];
  readonly output: readonly string[];
  readonly attributes: Readonly<Record<string, Attribute>>;
}

/** `ValueInfoProto` of a tensor */
export interface ValueInfo {
  readonly name: string;
  readonly type: ElementType;
  readonly shape: readonly Dimension[];
}

/** `TensorProto` without its bytes, of which there are `size`. */
export interface TensorInfo {
  readonly name: string;
  readonly type: ElementType;
  readonly shape: readonly number[];
  readonly size: number;
}

/** A tensor in the model, whose bytes (little-endian) are read when they are written. */
export interface InsideTensor extends TensorInfo {
  read(): Promise<Uint8Array>;
}

/** A tensor in a file beside the model. */
export interface BesideTensor extends TensorInfo {
  readonly location: string;
  readonly offset: number;
}

/** `ModelProto` */
export interface Model {
  readonly irVersion: number;
  readonly opset: number;
  readonly producer: string;
  readonly graphName: string;
  readonly nodes: readonly Node[];
  readonly inside: readonly InsideTensor[];
  readonly beside: readonly BesideTensor[];
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  readonly metadata: readonly (readonly [string, string])[];
}

const many = (type: string, id: number) => ({ rule: 'repeated', type, id });

/** The messages of ONNX that a model needs, by field number (onnx.proto3 of ONNX 1.12). */
const messages = {
  nested: {
    ModelProto: {
      fields: {
        irVersion: { type: 'int64', id: 1 },
        producerName: { type: 'string', id: 2 },
        graph: { type: 'GraphProto', id: 7 },
        opsetImport: many('OperatorSetIdProto', 8),
        metadataProps: many('StringStringEntryProto', 14),
      },
    },
    GraphProto: {
      fields: { node: many('NodeProto', 1), name: { type: 'string', id: 2 }, initializer: many('TensorProto', 5), input: many('ValueInfoProto', 11), output: many('ValueInfoProto', 12) },
    },
    NodeProto: {
      fields: { input: many('string', 1), output: many('string', 2), name: { type: 'string', id: 3 }, opType: { type: 'string', id: 4 }, attribute: many('AttributeProto', 5) },
    },
    AttributeProto: {
      fields: { name: { type: 'string', id: 1 }, f: { type: 'float', id: 2 }, i: { type: 'int64', id: 3 }, s: { type: 'bytes', id: 4 }, ints: many('int64', 8), type: { type: 'int32', id: 20 } },
    },
    TensorProto: {
      fields: {
        dims: many('int64', 1),
        dataType: { type: 'int32', id: 2 },
        name: { type: 'string', id: 8 },
        rawData: { type: 'bytes', id: 9 },
        externalData: many('StringStringEntryProto', 13),
        dataLocation: { type: 'int32', id: 14 },
      },
    },
    ValueInfoProto: { fields: { name: { type: 'string', id: 1 }, type: { type: 'TypeProto', id: 2 } } },
    TypeProto: {
      fields: { tensorType: { type: 'Tensor', id: 1 } },
      nested: { Tensor: { fields: { elemType: { type: 'int32', id: 1 }, shape: { type: 'TensorShapeProto', id: 2 } } } },
    },
    TensorShapeProto: {
      fields: { dim: many('Dimension', 1) },
      nested: { Dimension: { fields: { dimValue: { type: 'int64', id: 1 }, dimParam: { type: 'string', id: 2 } } } },
    },
    OperatorSetIdProto: { fields: { domain: { type: 'string', id: 1 }, version: { type: 'int64', id: 2 } } },
    StringStringEntryProto: { fields: { key: { type: 'string', id: 1 }, value: { type: 'string', id: 2 } } },
  },
};

/** Numbers of `AttributeProto.AttributeType`. */
const attributeType = { float: 1, int: 2, string: 3, ints: 7 } as const;
/** `TensorProto.EXTERNAL` */
const EXTERNAL = 1;
/** Protobuf's wire type of strings, bytes and messages. */
const LENGTH_DELIMITED = 2;

/** The file of a model, whose size is known before its weights are read. */
export interface EncodedModel {
  readonly size: number;
  /**
   * The file's bytes.
   * @yields parts of the file, in order, each tensor read when it is its turn
   */
  stream(): AsyncGenerator<Uint8Array, void, void>;
}

/**
 * Encodes a model. What is small is encoded at once; tensors' bytes, which protobuf writes as they are, are put between,
 * each after the lengths of what encloses it.
 */
export async function encodeModel(model: Model): Promise<EncodedModel> {
  const { default: protobuf } = await import('protobufjs/light.js');
  const root = protobuf.Root.fromJSON(messages);
  const [ModelProto, GraphProto, TensorProto] = ['ModelProto', 'GraphProto', 'TensorProto'].map((name) => root.lookupType(name)) as [Type, Type, Type];
  /** What stands before `length` bytes of a field. */
  const opening = (type: Type, field: string, length: number): Uint8Array => protobuf.Writer.create().uint32((type.fields[field]!.id << 3) | LENGTH_DELIMITED).uint32(length).finish();
  const entries = (pairs: readonly (readonly [string, string])[]) => pairs.map(([key, value]) => ({ key, value }));
  const infoOf = ({ name, type, shape }: TensorInfo) => ({ name, dims: shape, dataType: elementType[type] });

  const graph = GraphProto.encode({
    name: model.graphName,
    node: model.nodes.map(({ name, opType, input, output, attributes }) => ({ name, opType, input, output, attribute: Object.entries(attributes).map(attributeOf) })),
    initializer: model.beside.map((tensor) => ({ ...infoOf(tensor), dataLocation: EXTERNAL, externalData: entries([['location', tensor.location], ['offset', String(tensor.offset)], ['length', String(tensor.size)]]) })),
    input: model.inputs.map(valueInfoOf),
    output: model.outputs.map(valueInfoOf),
  }).finish();
  const tensors = model.inside.map((tensor) => {
    const info = TensorProto.encode(infoOf(tensor)).finish();
    const raw = opening(TensorProto, 'rawData', tensor.size);
    const before = [opening(GraphProto, 'initializer', info.length + raw.length + tensor.size), info, raw];
    return { tensor, before, size: lengthOf(before) + tensor.size };
  });
  const graphSize = tensors.reduce((sum, { size }) => sum + size, graph.length);
  const head = [
    ModelProto.encode({ irVersion: model.irVersion, producerName: model.producer, opsetImport: [{ domain: '', version: model.opset }], metadataProps: entries(model.metadata) }).finish(),
    opening(ModelProto, 'graph', graphSize),
  ];
  return {
    size: lengthOf(head) + graphSize,
    stream: async function* () {
      yield* [...head, graph];
      for (const { tensor, before } of tensors) {
        yield* before;
        yield await tensor.read();
      }
    },
  };
}

const lengthOf = (parts: readonly Uint8Array[]): number => parts.reduce((sum, { length }) => sum + length, 0);

function attributeOf([name, value]: [string, Attribute]): object {
  if (typeof value === 'number') return { name, i: value, type: attributeType.int };
  if (typeof value === 'string') return { name, s: new TextEncoder().encode(value), type: attributeType.string };
  if ('float' in value) return { name, f: value.float, type: attributeType.float };
  return { name, ints: value, type: attributeType.ints };
}

function valueInfoOf({ name, type, shape }: ValueInfo): object {
  return { name, type: { tensorType: { elemType: elementType[type], shape: { dim: shape.map((size) => (typeof size === 'number' ? { dimValue: size } : { dimParam: size })) } } } };
}
