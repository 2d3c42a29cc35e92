import { ArgumentError, CheckpointError } from '@tinyfusion/core';
import { MODEL_KEY } from '@tinyfusion/nn';
import { type StateDict, type TensorRecord, bytesPerValue } from '@tinyfusion/weights';
import { positionEmbedding } from './embeddings.js';

/** Names that each of diffusers' blocks has and that upstream has once: theirs repeats them in every block. */
const shared: readonly (readonly [theirs: string, ours: string])[] = [
  ['norm1.emb.timestep_embedder.linear_1', 't_embedder.mlp.0'],
  ['norm1.emb.timestep_embedder.linear_2', 't_embedder.mlp.2'],
  ['norm1.emb.class_embedder.embedding_table', 'y_embedder.embedding_table'],
];

/** Layers of a block, but for queries, keys and values. */
const layers: readonly (readonly [theirs: string, ours: string])[] = [
  ['norm1.linear', 'adaLN_modulation.1'],
  ['attn1.to_out.0', 'attn.proj'],
  ['ff.net.0.proj', 'mlp.fc1'],
  ['ff.net.2', 'mlp.fc2'],
];

/** Layers outside of blocks. */
const outer: readonly (readonly [theirs: string, ours: string])[] = [
  ['pos_embed.proj', 'x_embedder.proj'],
  ['proj_out_1', 'final_layer.adaLN_modulation.1'],
  ['proj_out_2', 'final_layer.linear'],
];

const projections = ['to_q', 'to_k', 'to_v'] as const;
const parts = ['weight', 'bias'] as const;

/** Whether a state dict has the names of diffusers' `DiTTransformer2DModel`. */
export function isDiffusersDiT({ tensors }: StateDict): boolean {
  return tensors.has('transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight');
}

/** Options of {@link ditFromDiffusers}. */
export interface DitFromDiffusersOptions {
  /** Side of the latents: 64 for 512×512. Default: what the file's own position embedding or our metadata says, else 32, for 256×256. */
  inputSize?: number | undefined;
}

/**
 * A DiT of diffusers' (`DiTTransformer2DModel`) in upstream's names; nothing is read. Its queries, keys and values become
 * one tensor, and the position embedding is there again, which diffusers computes and most of its files do not have: then
 * no tensor tells the size of the latents, and `inputSize` has to, where it is not that of 256×256.
 *
 * @throws CheckpointError where a tensor is missing or unknown, or its position embedding is of another size than `inputSize`;
 * ArgumentError where that is no multiple of the patch
 */
export function ditFromDiffusers(state: StateDict, { inputSize }: DitFromDiffusersOptions = {}): StateDict {
  const left = new Map(state.tensors);
  const take = (name: string): TensorRecord => {
    const record = left.get(name);
    if (record === undefined) throw new CheckpointError(`the checkpoint has DiT's names of diffusers, but no ${name}`);
    left.delete(name);
    return record;
  };
  const tensors = new Map<string, TensorRecord>();
  for (const part of parts) for (const [theirs, ours] of outer) tensors.set(`${ours}.${part}`, take(`${theirs}.${part}`));
  const [width, , patch] = tensors.get('x_embedder.proj.weight')!.shape as [number, number, number];
  tensors.set('pos_embed', positionsOf(state, { width, patch, inputSize }));
  for (let i = 0; left.has(`transformer_blocks.${i}.norm1.linear.weight`); i++) {
    const at = `transformer_blocks.${i}`;
    for (const [theirs, ours] of shared) {
      for (const part of parts) {
        if (ours.endsWith('embedding_table') && part === 'bias') continue;
        const record = take(`${at}.${theirs}.${part}`);
        if (i === 0) tensors.set(`${ours}.${part}`, record);
      }
    }
    for (const part of parts) {
      for (const [theirs, ours] of layers) tensors.set(`blocks.${i}.${ours}.${part}`, take(`${at}.${theirs}.${part}`));
      tensors.set(`blocks.${i}.attn.qkv.${part}`, stacked(projections.map((name) => take(`${at}.attn1.${name}.${part}`))));
    }
  }
  const unknown = [...left.keys()].filter((name) => name !== 'pos_embed.pos_embed');
  if (unknown.length > 0) throw new CheckpointError(`the checkpoint has DiT's names of diffusers, and others: ${unknown.slice(0, 6).join(', ')}`);
  return { tensors, metadata: state.metadata };
}

/** Upstream's position embedding: the file's own where it has one. */
function positionsOf({ tensors, metadata }: StateDict, { width, patch, inputSize }: { width: number; patch: number; inputSize: number | undefined }): TensorRecord {
  if (inputSize !== undefined && !(Number.isInteger(inputSize / patch) && inputSize > 0)) throw new ArgumentError('DitFromDiffusersOptions.inputSize', inputSize, `a positive multiple of the patch size ${patch}`);
  const own = tensors.get('pos_embed.pos_embed');
  if (own === undefined) {
    const grid = (inputSize ?? storedInputSize(metadata) ?? 32) / patch;
    if (!Number.isInteger(grid) || grid < 1 || grid > LARGEST_GRID) throw new CheckpointError(`the checkpoint has DiT's names of diffusers, and latents of ${grid * patch} cannot be cut into its patches of ${patch}; say their inputSize`);
    return { dtype: 'F32', shape: [1, grid * grid, width], read: async () => new Uint8Array(positionEmbedding(width, grid).slice().buffer) };
  }
  const grid = Math.sqrt(own.shape.at(-2) ?? 0);
  if (!Number.isInteger(grid) || own.shape.at(-1) !== width || own.shape.length > 3 || own.shape.slice(0, -2).some((size) => size !== 1)) throw new CheckpointError(`pos_embed.pos_embed is [${own.shape.join(', ')}], expected [1, T, ${width}] with T tokens of a square image`);
  if (inputSize !== undefined && grid * patch !== inputSize) throw new CheckpointError(`the checkpoint's pos_embed.pos_embed is that of latents of ${grid * patch}, and inputSize is ${inputSize}`);
  return { ...own, shape: [1, grid * grid, width] };
}

/** Tokens along a side, as a file's metadata may ask for: images of 8192 in patches of 1. */
const LARGEST_GRID = 1024;

/** Side of the latents in the metadata of a checkpoint of ours. */
function storedInputSize(metadata: StateDict['metadata']): number | undefined {
  try {
    return (JSON.parse(metadata.get(MODEL_KEY) ?? 'null') as { config?: { inputSize?: number } } | null)?.config?.inputSize;
  } catch {
    return undefined;
  }
}

/**
 * A DiT in the names of diffusers' `DiTTransformer2DModel`, the inverse of {@link ditFromDiffusers}.
 * @throws CheckpointError where a tensor is missing
 */
export function ditToDiffusers({ tensors: own, metadata }: StateDict): StateDict {
  const get = (name: string): TensorRecord => {
    const record = own.get(name);
    if (record === undefined) throw new CheckpointError(`the checkpoint is no DiT in upstream's names: it has no ${name}. It has: ${[...own.keys()].slice(0, 6).join(', ')}`);
    return record;
  };
  const tensors = new Map<string, TensorRecord>();
  for (const part of parts) for (const [theirs, ours] of outer) tensors.set(`${theirs}.${part}`, get(`${ours}.${part}`));
  if (!own.has('blocks.0.attn.qkv.weight')) get('blocks.0.attn.qkv.weight');
  for (let i = 0; own.has(`blocks.${i}.attn.qkv.weight`); i++) {
    const at = `transformer_blocks.${i}`;
    for (const part of parts) {
      for (const [theirs, ours] of shared) if (own.has(`${ours}.${part}`)) tensors.set(`${at}.${theirs}.${part}`, get(`${ours}.${part}`));
      for (const [theirs, ours] of layers) tensors.set(`${at}.${theirs}.${part}`, get(`blocks.${i}.${ours}.${part}`));
      for (const [k, third] of thirds(get(`blocks.${i}.attn.qkv.${part}`)).entries()) tensors.set(`${at}.attn1.${projections[k]}.${part}`, third);
    }
  }
  return { tensors, metadata };
}

/** Tensors on top of each other, read when they are asked for. */
function stacked(records: readonly TensorRecord[]): TensorRecord {
  const [first] = records as [TensorRecord];
  for (const { dtype, shape } of records) if (dtype !== first.dtype || String(shape.slice(1)) !== String(first.shape.slice(1))) throw new CheckpointError(`queries, keys and values differ in type or shape: ${records.map((r) => `${r.dtype} [${r.shape.join(', ')}]`).join(', ')}`);
  return {
    dtype: first.dtype,
    shape: [records.reduce((sum, { shape }) => sum + shape[0]!, 0), ...first.shape.slice(1)],
    read: async () => {
      const all = await Promise.all(records.map((record) => record.read()));
      return new Uint8Array(await new Blob(all as Uint8Array<ArrayBuffer>[]).arrayBuffer());
    },
  };
}

/** A tensor's three equal parts along its first axis. */
function thirds(record: TensorRecord): TensorRecord[] {
  const [rows, ...rest] = record.shape as [number, ...number[]];
  const shape = [rows / 3, ...rest];
  const size = shape.reduce((a, b) => a * b, bytesPerValue[record.dtype]);
  return [0, 1, 2].map((k) => ({ dtype: record.dtype, shape, read: async () => (await record.read()).slice(k * size, (k + 1) * size) }));
}
