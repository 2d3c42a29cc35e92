import type { ProgressEvent } from '@tinyfusion/core';
import type { LayerActivations, ProposedThreshold } from '@tinyfusion/distill';
import type { PruneRecord } from '@tinyfusion/pruning';
import type { Decision } from '@tinyfusion/sampler';

/** What the page and its worker say to each other, all plain data. */

/** The two that are compared. */
export type Who = 'teacher' | 'student';

/** Images as bytes, `[count, height, width, channels]`. */
export interface Pixels {
  readonly count: number;
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** A model that was loaded. */
export interface ModelInfo {
  readonly name: string;
  readonly family: 'DiT' | 'SiT' | 'MAR';
  readonly depth: number;
  /** Depth of each stack: one, or MAR's encoder and decoder. */
  readonly stacks: readonly number[];
  readonly parameters: number;
  readonly numClasses: number;
  /** Empty where they are not known. */
  readonly classNames: readonly string[];
  readonly sha256: string;
  /** Whether the page has images of its kind to learn from. */
  readonly hasData: boolean;
  /** What its samples are shown by. */
  readonly pictures: 'autoencoder' | 'latents';
  /** Whether it came with the page. */
  readonly embedded: boolean;
  /** How it was cut, where it is a shallow one. */
  readonly history: string | undefined;
}

/** A choice of blocks, and how it came about. */
export interface Choice {
  readonly kept: readonly number[];
  /** As in a `PruneRecord`: `'learned'`, `'hand'`, … */
  readonly criterion: string;
  readonly groups?: readonly (readonly [number, number])[];
  readonly confidence?: readonly number[];
  /** Of what was drawn at random to choose them. */
  readonly seed?: number;
}

/** A student whose weights have moved. */
export interface StudentInfo {
  readonly choice: Choice;
  /** Steps of recovery behind it; `undefined` where its file does not say. */
  readonly steps: number | undefined;
  readonly parameters: number;
  readonly described: string;
}

/** What opening a file led to. */
export type Opened =
  | { readonly kind: 'teacher'; readonly model: ModelInfo }
  | { readonly kind: 'student'; readonly student: StudentInfo }
  | { readonly kind: 'autoencoder'; readonly model: ModelInfo; readonly name: string }
  | { readonly kind: 'ask'; readonly presets: readonly string[]; readonly summary: string };

export type Solver = 'dpm' | 'ddim' | 'ddpm' | 'heun' | 'euler' | 'mar';

/** How to draw. */
export interface DrawSettings {
  readonly labels: readonly number[];
  readonly steps: number;
  readonly guidance: number;
  readonly solver: Solver;
  readonly seed: number;
}

/** A step of a drawing. */
export interface Preview {
  readonly who: Who;
  readonly step: number;
  readonly total: number;
  readonly pixels: Pixels;
  /** Time of the model (and, at the end, of the autoencoder), without previews. */
  readonly seconds: number;
}

/** How many of the programs that a model needs the GPU has. */
export interface Preparing {
  readonly who: Who;
  readonly prepared: number;
  readonly of: number;
}

/** What a drawing shows on its way. */
export type DrawEvent = Preparing | Preview;

/** What the blocks are worth. */
export interface BlockCosts {
  /** Milliseconds of each, for a batch of 16. */
  readonly times: readonly number[];
  /** Milliseconds of the rest of the model. */
  readonly rest: number;
  /** Loss without each one alone; empty where there is nothing to measure on. */
  readonly alone: readonly number[];
  /** Loss of the whole model. */
  readonly loss: number | undefined;
}

export interface LearnSettings {
  /** M of N:M; half of each group stays. */
  readonly group: number;
  readonly steps: number;
  readonly batchSize: number;
  readonly seed: number;
}

/** What mask learning shows on its way. */
export type LearnEvent = { readonly progress: ProgressEvent } | { readonly step: number; readonly decision: Decision };

export interface RecoverSettings {
  readonly steps: number;
  readonly batchSize: number;
  readonly lr: number;
  readonly alpha: number;
  readonly beta: number;
  /** k of the mask; 0 is none. */
  readonly sigmas: number;
  readonly seed: number;
}

export type RecoverEvent = { readonly progress: ProgressEvent } | { readonly step: number; readonly pixels: Pixels };

/** Hidden states of a model's blocks, and the threshold they suggest. */
export interface Activations {
  readonly teacher: readonly LayerActivations[];
  readonly student: readonly LayerActivations[];
  readonly proposed: ProposedThreshold;
}

/** A row of the table of measurements. */
export interface Measured {
  readonly name: string;
  readonly blocks: number;
  readonly fid: number;
  readonly inceptionScore: number;
  readonly precision: number;
  readonly recall: number;
  /** Share of samples in which the classifier sees what was asked for. */
  readonly agreement: number;
  readonly imagesPerSecond: number;
  readonly count: number;
  /** How they were drawn; absent where an earlier version of the page measured. */
  readonly steps?: number;
  readonly guidance?: number;
}

/** What is left of earlier visits, for the model at hand. */
export interface Kept {
  readonly student: StudentInfo | undefined;
  /** Steps done of a run that was left, and its settings. */
  readonly learn: { readonly step: number; readonly settings: LearnSettings } | undefined;
  readonly recover: { readonly step: number; readonly settings: RecoverSettings; readonly choice: Choice } | undefined;
}

/** Memory of the backend. */
export interface Memory {
  readonly tensors: number;
  readonly bytes: number;
}

/** A file for the user. */
export interface Download {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly record: PruneRecord;
}

/** To the worker: start a call, or end one. */
export type Request = { readonly call: number; readonly name: string; readonly args: unknown } | { readonly abort: number };

/** From the worker. */
export type Reply =
  | { readonly call: number; readonly event: unknown }
  | { readonly call: number; readonly result: unknown }
  | { readonly call: number; readonly error: { readonly name: string; readonly code: string; readonly message: string } }
  | { readonly memory: Memory };
