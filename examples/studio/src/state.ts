import type { ProgressEvent } from '@tinyfusion/core';
import type { BackendChoice } from '@tinyfusion/kernels';
import type { PruneRecord } from '@tinyfusion/pruning';
import type { Decision } from '@tinyfusion/sampler';
import type { Activations, BlockCosts, Choice, DrawSettings, Kept, LearnSettings, Measured, Memory, ModelInfo, Preparing, Preview, RecoverSettings, StudentInfo, Who } from './protocol';

/** Work of some length, one at a time. */
export interface Job {
  readonly kind: 'start' | 'open' | 'costs' | 'choose' | 'learn' | 'activations' | 'recover' | 'measure' | 'download';
  /** What a person calls it: "Learning which blocks to keep". */
  readonly label: string;
  readonly progress: ProgressEvent | undefined;
  /** Where the present task began, or went on: its rate is told from there. */
  readonly from: { readonly task: string; readonly step: number; readonly at: number } | undefined;
  readonly stopping: boolean;
  readonly stop: (() => void) | undefined;
}

/** A moment of mask learning. */
export interface Moment {
  readonly step: number;
  readonly decision: Decision;
}

export type Points = readonly (readonly [step: number, value: number])[];

export type TabName = 'choose' | 'recover' | 'measure' | 'take';

/** A choice of blocks that was tried, and its loss. */
export interface Tried {
  readonly choice: Choice;
  readonly loss: number | undefined;
}

/** All that the page shows. */
export interface State {
  readonly backend: BackendChoice | undefined;
  readonly memory: Memory | undefined;
  readonly job: Job | undefined;
  readonly error: string | undefined;
  /** A file whose model has to be asked for. */
  readonly asking: { readonly file: File; readonly presets: readonly string[]; readonly summary: string } | undefined;
  readonly dropping: boolean;
  readonly model: ModelInfo | undefined;
  readonly student: StudentInfo | undefined;
  readonly choice: Choice;
  readonly tried: readonly Tried[];
  /** Loss of the choice; `'…'` while it is measured. */
  readonly loss: number | '…' | undefined;
  /** Loss of the recovered student. */
  readonly studentLoss: number | '…' | undefined;
  readonly costs: BlockCosts | undefined;
  readonly draw: DrawSettings;
  readonly drawing: boolean;
  readonly pictures: Partial<Readonly<Record<Who, Preview>>>;
  readonly preparing: Partial<Readonly<Record<Who, Preparing>>>;
  /** What the pictures are of: how they are drawn, and the student in words, said above its own. */
  readonly shown: { readonly draw: DrawSettings | undefined; readonly student: string };
  readonly tab: TabName;
  readonly left: Pick<Kept, 'learn' | 'recover'>;
  readonly learn: LearnSettings;
  readonly learnLoss: Points;
  readonly moments: readonly Moment[];
  readonly recover: RecoverSettings;
  readonly recoverLoss: Points;
  readonly activations: Activations | undefined;
  /** Block whose histogram is shown; `undefined`: all together. */
  readonly histogramOf: number | undefined;
  readonly measuring: { readonly count: number; readonly steps: number; readonly guidance: number; readonly seed: number };
  readonly measured: readonly Measured[];
  readonly precision: 'F32' | 'F16';
  readonly record: PruneRecord | undefined;
  /** What a screen reader is told. */
  readonly said: string;
}

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

export let state: State = {
  backend: undefined,
  memory: undefined,
  job: undefined,
  error: undefined,
  asking: undefined,
  dropping: false,
  model: undefined,
  student: undefined,
  choice: { kept: [], criterion: 'hand' },
  tried: [],
  loss: undefined,
  studentLoss: undefined,
  costs: undefined,
  draw: { labels: range(10), steps: 12, guidance: 2.5, solver: 'dpm', seed: 1 },
  drawing: false,
  pictures: {},
  preparing: {},
  shown: { draw: undefined, student: '' },
  tab: 'choose',
  left: { learn: undefined, recover: undefined },
  learn: { group: 2, steps: 100, batchSize: 32, seed: 0 },
  learnLoss: [],
  moments: [],
  recover: { steps: 100, batchSize: 32, lr: 1e-3, alpha: 0.9, beta: 0.01, sigmas: 2, seed: 0 },
  recoverLoss: [],
  activations: undefined,
  histogramOf: undefined,
  measuring: { count: 100, steps: 10, guidance: 1.5, seed: 0 },
  measured: [],
  precision: 'F16',
  record: undefined,
  said: '',
};

const watchers: ((state: State) => void)[] = [];
let due = false;

/** Changes some of the state; watchers see it with the next frame. */
export function update(part: Partial<State>): void {
  state = { ...state, ...part };
  if (due) return;
  due = true;
  // a page that is hidden, or will be, has no frames, and its work goes on
  const frame = requestAnimationFrame(tell);
  const timer = setTimeout(tell, document.hidden ? 250 : 2000);
  function tell(): void {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    due = false;
    for (const watcher of watchers) watcher(state);
  }
}

/** Changes one of the settings, and leaves the others as they are now: a view may show them as they were a frame ago. */
export const amend = <K extends 'draw' | 'learn' | 'recover' | 'measuring'>(settings: K, part: Partial<State[K]>): void => update({ [settings]: { ...state[settings], ...part } });

export const watch = (watcher: (state: State) => void): void => void watchers.push(watcher);

/** Sizes of groups that each stack of a model divides into, half of which can stay. */
export const groupSizes = ({ depth, stacks }: ModelInfo): number[] => range(depth).map((i) => i + 1).filter((size) => size % 2 === 0 && size <= 8 && stacks.every((own) => own % size === 0));

/** Whether two choices keep the same blocks. */
export const sameBlocks = (a: Choice | undefined, b: Choice | undefined): boolean => String(a?.kept) === String(b?.kept);

/** The recovered student where it is the one chosen. */
export const ownStudent = ({ student, choice }: State): StudentInfo | undefined => (sameBlocks(student?.choice, choice) ? student : undefined);

/** Share of the teacher's time that a choice takes; `undefined` where it was not measured. */
export function timeShare({ costs, choice }: State): number | undefined {
  if (costs === undefined) return undefined;
  const all = costs.rest + costs.times.reduce((a, b) => a + b, 0);
  return (costs.rest + choice.kept.reduce((sum, i) => sum + costs.times[i]!, 0)) / all;
}
