import { ArgumentError } from '@tinyfusion/core';
import type { Init } from '@tinyfusion/nn';
import { DiT, type DiTConfig } from './dit.js';
import { MAR, type MARConfig } from './mar/mar.js';
import { SiT } from './sit.js';

type Size = readonly [depth: number, hiddenSize: number, numHeads: number];

/** DiT's table 1, which SiT shares. */
const sizes: Readonly<Record<string, Size>> = { S: [12, 384, 6], B: [12, 768, 12], L: [24, 1024, 16], XL: [28, 1152, 16] };

/** TinyFusion's shallow ones, at XL's width. */
const shallow: Readonly<Record<string, Size>> = { D19: [19, 1152, 16], D14: [14, 1152, 16], D7: [7, 1152, 16] };

/** Names and sizes of one of DiT and SiT; the shallow ones also as `TinyDiT-D14`. */
function family(name: 'DiT' | 'SiT', depths: readonly string[]): [string, DiTConfig][] {
  const config = ([depth, hiddenSize, numHeads]: Size, patchSize: number): DiTConfig => ({
    inputSize: 32,
    patchSize,
    inChannels: 4,
    hiddenSize,
    depth,
    numHeads,
    mlpRatio: 4,
    classDropoutProb: 0.1,
    numClasses: 1000,
    learnSigma: true,
  });
  return [
    ...Object.entries(sizes).flatMap(([size, shape]) => [2, 4, 8].map((p): [string, DiTConfig] => [`${name}-${size}/${p}`, config(shape, p)])),
    ...depths.flatMap((depth) => [`${name}-${depth}/2`, `Tiny${name}-${depth}`].map((alias): [string, DiTConfig] => [alias, config(shallow[depth]!, 2)])),
  ];
}

/** MAR's models of its table 4, and TinyFusion's half as deep MAR-L. */
function mar([depth, width, heads]: Size, headDepth: number, headWidth: number): MARConfig {
  return {
    inputSize: 16,
    patchSize: 1,
    inChannels: 16,
    encoderWidth: width,
    encoderDepth: depth,
    encoderHeads: heads,
    decoderWidth: width,
    decoderDepth: depth,
    decoderHeads: heads,
    mlpRatio: 4,
    normEpsilon: 1e-6,
    numClasses: 1000,
    bufferSize: 64,
    headDepth,
    headWidth,
    maskRatioMin: 0.7,
    labelDropProb: 0.1,
    attentionDropout: 0.1,
    projectionDropout: 0.1,
    diffusionBatchMul: 4,
  };
}

const dits = new Map(family('DiT', ['D19', 'D14', 'D7']));
const sits = new Map(family('SiT', ['D14']));
const mars = new Map<string, MARConfig>([
  ['MAR-B', mar([12, 768, 12], 6, 1024)],
  ['MAR-L', mar([16, 1024, 16], 8, 1280)],
  ['MAR-H', mar([20, 1280, 16], 12, 1536)],
  ['MAR-D16', mar([8, 1024, 16], 8, 1280)],
  ['TinyMAR-D16', mar([8, 1024, 16], 8, 1280)],
]);

/** Every name that {@link createModel} knows: `DiT-S/2` … `DiT-XL/8`, the same of SiT, `MAR-B`, `MAR-L`, `MAR-H`, and the shallow `DiT-D19/2`, `DiT-D14/2`, `DiT-D7/2`, `SiT-D14/2`, `MAR-D16`, which are also `TinyDiT-D14` and so on. */
export const presets: readonly string[] = [...dits.keys(), ...sits.keys(), ...mars.keys()];

/**
 * The configuration of a published DiT or SiT for 256×256 ImageNet (latents 32×32×4, 1000 classes), with changes.
 *
 * @param name one of {@link presets}
 * @param changes e.g. `{ inputSize: 64 }` for 512×512
 * @throws ArgumentError where the name is unknown, with the nearest one
 */
export function ditConfig(name: string, changes: Partial<DiTConfig> = {}): DiTConfig {
  return { ...(dits.get(name) ?? sits.get(name) ?? unknown(name, [...dits.keys(), ...sits.keys()])), ...changes };
}

/** The configuration of a published MAR for 256×256 ImageNet (latents 16×16×16 of KL-16). Throws as {@link ditConfig} does. */
export function marConfig(name: string, changes: Partial<MARConfig> = {}): MARConfig {
  return { ...(mars.get(name) ?? unknown(name, [...mars.keys()])), ...changes };
}

/** What {@link createModel} makes of a name. */
export type ModelOf<Name extends string> = Name extends `${'' | 'Tiny'}DiT-${string}` ? DiT : Name extends `${'' | 'Tiny'}SiT-${string}` ? SiT : Name extends `${'' | 'Tiny'}MAR-${string}` ? MAR : DiT | SiT | MAR;

/** Changes to a preset's configuration. */
export type ChangesOf<Name extends string> = ModelOf<Name> extends MAR ? Partial<MARConfig> : ModelOf<Name> extends DiT ? Partial<DiTConfig> : Partial<DiTConfig> & Partial<MARConfig>;

/**
 * A published model by its name, `createModel('SiT-XL/2', { init: createRng(0) })`.
 *
 * @param name one of {@link presets}
 * @param options `init`: an `Rng`, or `'zeros'` where a checkpoint follows; `changes` to the configuration
 * @throws ArgumentError where the name is unknown, with the nearest one
 */
export function createModel<Name extends string>(name: Name, { init, changes = {} as ChangesOf<Name> }: { init: Init; changes?: ChangesOf<Name> }): ModelOf<Name> {
  if (mars.has(name)) return new MAR(marConfig(name, changes as Partial<MARConfig>), { init }) as ModelOf<Name>;
  if (sits.has(name)) return new SiT(ditConfig(name, changes as Partial<DiTConfig>), { init }) as ModelOf<Name>;
  if (dits.has(name)) return new DiT(ditConfig(name, changes as Partial<DiTConfig>), { init }) as ModelOf<Name>;
  return unknown(name, presets);
}

/** Refuses a name that is not among those known, with the nearest one. */
export function unknown(name: string, known: readonly string[]): never {
  const nearest = known.map((preset) => [editDistance(name.toLowerCase(), preset.toLowerCase()), preset] as const).toSorted(([a], [b]) => a - b)[0]![1];
  throw new ArgumentError('model name', name, `one of ${known.join(', ')}; the nearest is ${nearest}`);
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
