import { ArgumentError } from '@tinyfusion/core';
import type { DiTConfig } from './dit.js';

/** depth, width, heads: DiT's table 1, and TinyFusion's shallow ones at XL's width. */
const sizes: Readonly<Record<string, readonly [depth: number, hiddenSize: number, numHeads: number]>> = {
  'DiT-S': [12, 384, 6],
  'DiT-B': [12, 768, 12],
  'DiT-L': [24, 1024, 16],
  'DiT-XL': [28, 1152, 16],
  'DiT-D19': [19, 1152, 16],
  'DiT-D14': [14, 1152, 16],
  'DiT-D7': [7, 1152, 16],
};
const patches = [2, 4, 8];

/** Every preset name: `DiT-S/2` … `DiT-XL/8`, and the shallow `DiT-D19/2`, `DiT-D14/2`, `DiT-D7/2`. */
export const ditPresets: readonly string[] = Object.keys(sizes).flatMap((size) => (size.startsWith('DiT-D') ? [2] : patches).map((p) => `${size}/${p}`));

/**
 * The configuration of a published model for 256×256 ImageNet (latents 32×32×4, 1000 classes), with changes.
 *
 * @param name one of {@link ditPresets}
 * @param changes e.g. `{ inputSize: 64 }` for 512×512
 * @throws ArgumentError where the name is unknown, with the nearest one
 */
export function ditConfig(name: string, changes: Partial<DiTConfig> = {}): DiTConfig {
  const [size = '', patch = ''] = name.split('/');
  const preset = Object.hasOwn(sizes, size) ? sizes[size] : undefined;
  if (preset === undefined || !ditPresets.includes(name)) throw new ArgumentError('model name', name, `one of ${ditPresets.join(', ')}; the nearest is ${nearest(name)}`);
  const [depth, hiddenSize, numHeads] = preset;
  return { inputSize: 32, patchSize: Number(patch), inChannels: 4, hiddenSize, depth, numHeads, mlpRatio: 4, classDropoutProb: 0.1, numClasses: 1000, learnSigma: true, ...changes };
}

function nearest(name: string): string {
  const distances = ditPresets.map((preset) => [editDistance(name.toLowerCase(), preset.toLowerCase()), preset] as const);
  return distances.toSorted(([a], [b]) => a - b)[0]![1];
}

/** Levenshtein's distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length]!;
}
