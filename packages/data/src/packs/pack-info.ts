import { DataError } from '@tinyfusion/core';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** What a pack is made of, in plain JSON: a command that goes on with one must say the same. */
export type PackSource = Readonly<Record<string, string | number | boolean | null>>;

/** How samples lie in a pack. */
export interface PackDescription {
  /** `'images'`: bytes, 0 to 255. `'latents'`: half floats, scaled to unit variance. */
  kind: 'images' | 'latents';
  /** `[H, W, C]` of a sample. */
  shape: readonly [height: number, width: number, channels: number];
  /** 1: as they are. 2: plain and flipped from left to right, of which training draws one. */
  views: 1 | 2;
  /** One name a class; their number is the number of classes. */
  classNames: readonly string[];
  /** Samples a shard. */
  perShard: number;
  source: PackSource;
}

/** A pack's `pack.json`. */
export interface PackInfo extends PackDescription {
  version: 1;
  /** Samples in all; absent while the pack is being made. */
  count?: number;
}

/** Bytes of one view of a sample. */
export const viewBytes = ({ kind, shape }: Pick<PackDescription, 'kind' | 'shape'>): number => shape[0] * shape[1] * shape[2] * (kind === 'images' ? 1 : 2);

/** A shard's file in a pack's folder. */
export const shardName = (index: number): string => `shard-${String(index).padStart(5, '0')}.safetensors`;

/** A pack's description, or `undefined` where the folder has none. @throws DataError where it is broken */
export async function readPackInfo(folder: string): Promise<PackInfo | undefined> {
  const path = join(folder, 'pack.json');
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if (['ENOENT', 'ENOTDIR'].includes((cause as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw new DataError(`${path} cannot be read: ${(cause as Error).message}`, { cause });
  }
  let info: Partial<PackInfo>;
  try {
    info = JSON.parse(text) as Partial<PackInfo>;
  } catch (cause) {
    throw new DataError(`${path} is no description of a pack: ${(cause as Error).message}; make the pack again`, { cause });
  }
  const whole = (value: unknown): boolean => Number.isInteger(value) && (value as number) > 0;
  const fits = info.version === 1 && (info.kind === 'images' || info.kind === 'latents') && Array.isArray(info.shape) && info.shape.length === 3 && info.shape.every(whole) && (info.views === 1 || info.views === 2) && Array.isArray(info.classNames) && whole(info.perShard) && (info.count === undefined || whole(info.count));
  if (!fits) throw new DataError(`${path} is no description of a pack of version 1; make the pack again`);
  return info as PackInfo;
}
