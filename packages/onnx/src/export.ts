import { ArgumentError, type LongTaskOptions, throwIfCancelled } from '@tinyfusion/core';
import { AutoencoderKL, DiT, MAR, SiT, type StoredModel, TinyAutoencoder, configOf } from '@tinyfusion/models';
import { MODEL_KEY } from '@tinyfusion/nn';
import { ditGraph } from './dit.js';
import { GraphBuilder, type Initialiser } from './graph-builder.js';
import { headGraph, marGraph } from './mar.js';
import { besideBytes, placed } from './placement.js';
import { type EncodedModel, encodeModel } from './proto.js';
import { tinyDecoderGraph, tinyEncoderGraph } from './tiny-autoencoder.js';
import { decoderGraph, encoderGraph } from './vae.js';

/** What can be exported. */
export type ExportableModel = StoredModel | TinyAutoencoder;

/** Networks of a model that has more than one: those of an {@link AutoencoderKL} or {@link TinyAutoencoder}, and those of a {@link MAR}. */
export type OnnxPart = 'decoder' | 'encoder' | 'transformer' | 'head';

/** Options of {@link exportOnnx}. Progress is told of tensors when they are read: those beside the model, when `data` is. */
export interface ExportOnnxOptions extends LongTaskOptions {
  /**
   * Type of weights and maths; what goes in and comes out is float32 either way. In float16, times, norms' statistics
   * and softmax stay in float32. Default `'F32'`.
   */
  dtype?: 'F32' | 'F16';
  /** Which network of the model. Default: an autoencoder's `'decoder'`, MAR's `'transformer'`. */
  part?: OnnxPart;
  /** Further text to keep in the file (`metadata_props`), e.g. a checkpoint's metadata or its prune record. Default: none. */
  metadata?: Iterable<readonly [string, string]>;
  /** Whether weights are put in a file beside the model. Default: where they take more than the 2 GB of a protobuf file, which `false` refuses. */
  externalData?: boolean;
  /** What the model calls the file of its weights, which is to lie in the same folder. Default `'model.onnx.data'`. */
  dataName?: string;
}

/** Weights that lie beside a model. */
export interface OnnxData {
  /** The file's name, which the model knows. */
  readonly name: string;
  /** Bytes of the file. */
  readonly size: number;
  /**
   * The file's bytes, one tensor after another, each read from the device when it is its turn.
   * @yields parts of the file, in order
   */
  stream(): AsyncGenerator<Uint8Array, void, void>;
}

/** A model as ONNX. */
export interface OnnxExport {
  /** The `.onnx` file. */
  readonly model: Uint8Array<ArrayBuffer>;
  /** What belongs beside it, where the weights do not lie in it. The model must not be disposed before it is read. */
  readonly data?: OnnxData;
}

/**
 * A model as an ONNX graph of opset 17, for ONNX Runtime and whatever else reads it. A pruned model is exported as it is
 * now; packed weights are expanded; the batch may have any size. Images keep our layout, channels last:
 *
 * - {@link DiT}, {@link SiT}: `x` `[N, H, W, C]`, `t` `[N]`, `y` `[N]` int32 → `output` `[N, H, W, outChannels]`
 * - {@link AutoencoderKL}, `'decoder'`: `x` `[N, h, w, latentChannels]`, unscaled → `output` `[N, H, W, C]`; `'encoder'`:
 *   `x` `[N, H, W, C]` → `mean` and `logVariance`; height and width may be any that the model takes
 * - {@link TinyAutoencoder}, `'decoder'`: `x` `[N, h, w, 4]`, scaled → `output` `[N, 8·h, 8·w, 3]`; `'encoder'` the other way
 * - {@link MAR}, `'transformer'`: `tokens` `[N, L, C]`, `mask` `[N, L]` int32, not 0 where masked and as often in each
 *   sample, `y` `[N]` int32, numClasses for "no class" → `output` `[N, L, Z]`; `'head'`: `x` `[R, C]`, `t` `[R]`,
 *   `c` `[R, Z]`, rows of the transformer's output → `output` `[R, 2·C]`
 *
 * The file says of which kind and configuration the model is, in the words of our checkpoints (`tinyfusion.model`).
 * Encoders are compiled at run time (protobufjs): a page whose content security policy forbids `unsafe-eval` exports
 * elsewhere.
 *
 * @throws ArgumentError where the model is of another kind, has no such part, holds adapters, or is too large for the one
 * file that was asked for; CheckpointError where a weight does not fit float16; CancelledError, also of `data`
 */
export async function exportOnnx(model: ExportableModel, options: ExportOnnxOptions = {}): Promise<OnnxExport> {
  const { model: file, ...beside } = await onnxFiles(model, options);
  const bytes = new Uint8Array(file.size);
  let at = 0;
  for await (const part of file.stream()) {
    bytes.set(part, at);
    at += part.length;
  }
  return { model: bytes, ...beside };
}

/** The files of a model, of which nothing is read before its turn, so that no more than one tensor is in memory. */
export async function onnxFiles(model: ExportableModel, options: ExportOnnxOptions): Promise<{ model: EncodedModel; data?: OnnxData }> {
  const { dtype = 'F32', metadata = [], externalData, dataName = 'model.onnx.data', ...task } = options;
  if (dtype !== 'F32' && dtype !== 'F16') throw new ArgumentError('ExportOnnxOptions.dtype', dtype, "'F32' or 'F16'");
  if (!/^[^/\\]+$/.test(dataName)) throw new ArgumentError('ExportOnnxOptions.dataName', dataName, 'the name of a file in the same folder');
  const { type, config, part, draw } = planOf(model, options.part);
  const g = new GraphBuilder(model, dtype);
  draw(g);
  const { inside, beside, size } = placed(told([...g.initialisers.values()], task), externalData);
  const file = await encodeModel({
    irVersion: 8,
    opset: 17,
    producer: 'tinyfusion',
    graphName: part === undefined ? type : `${type}.${part}`,
    nodes: g.nodes,
    inside,
    beside: beside.map(({ tensor, offset }) => ({ ...tensor, location: dataName, offset })),
    inputs: g.inputs,
    outputs: g.outputs,
    // keys are to be distinct; a checkpoint's metadata may come with its own word on the model, which was before pruning
    metadata: [...new Map([...metadata, [MODEL_KEY, JSON.stringify({ type, config, ...(part === undefined ? {} : { part }) })]])],
  });
  return beside.length === 0 ? { model: file } : { model: file, data: { name: dataName, size, stream: () => besideBytes(beside) } };
}

/** The tensors, whose reading is reported and can be stopped. */
function told(tensors: readonly Initialiser[], { signal, onProgress }: LongTaskOptions): Initialiser[] {
  const read = new Set<string>();
  return tensors.map((tensor) => ({
    ...tensor,
    read: async () => {
      throwIfCancelled(signal, 'write ONNX');
      const bytes = await tensor.read();
      read.add(tensor.name);
      onProgress?.({ task: 'write ONNX', step: read.size, total: tensors.length, unit: 'tensor' });
      return bytes;
    },
  }));
}

interface Plan {
  type: string;
  config: object;
  part?: OnnxPart;
  draw(g: GraphBuilder): void;
}

/** What a model is, and how its graph is drawn. */
function planOf(model: ExportableModel, part: OnnxPart | undefined): Plan {
  if (model instanceof DiT) {
    if (part !== undefined) throw new ArgumentError('ExportOnnxOptions.part', part, 'none: the model is one network');
    return { type: model instanceof SiT ? 'SiT' : 'DiT', config: configOf(model), draw: (g) => ditGraph(g, model) };
  }
  if (model instanceof AutoencoderKL) {
    const chosen = part ?? 'decoder';
    if (chosen !== 'decoder' && chosen !== 'encoder') throw new ArgumentError('ExportOnnxOptions.part', chosen, "'decoder' or 'encoder'");
    return { type: 'AutoencoderKL', config: model.config, part: chosen, draw: (g) => (chosen === 'decoder' ? decoderGraph(g, model) : encoderGraph(g, model)) };
  }
  if (model instanceof TinyAutoencoder) {
    const chosen = part ?? 'decoder';
    if (chosen !== 'decoder' && chosen !== 'encoder') throw new ArgumentError('ExportOnnxOptions.part', chosen, "'decoder' or 'encoder'");
    return { type: 'TinyAutoencoder', config: model.config, part: chosen, draw: (g) => (chosen === 'decoder' ? tinyDecoderGraph(g, model) : tinyEncoderGraph(g, model)) };
  }
  if (model instanceof MAR) {
    const chosen = part ?? 'transformer';
    if (chosen !== 'transformer' && chosen !== 'head') throw new ArgumentError('ExportOnnxOptions.part', chosen, "'transformer' or 'head'");
    return { type: 'MAR', config: configOf(model), part: chosen, draw: (g) => (chosen === 'transformer' ? marGraph(g, model) : headGraph(g, model.diffloss.net)) };
  }
  throw new ArgumentError('exportOnnx: model', (model as object | null)?.constructor?.name ?? String(model), 'a DiT, SiT, MAR, AutoencoderKL or TinyAutoencoder');
}
