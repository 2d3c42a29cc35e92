import { ArgumentError, CheckpointError, type LongTaskOptions } from '@tinyfusion/core';
import { makeFolder, writeFileAtomic } from '@tinyfusion/weights/node';
import { readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { standaloneSvg } from '../report/svg.js';
import type { TeacherFamily } from '@tinyfusion/fashion-mnist';
import type { DiT } from '@tinyfusion/models';
import type { Prunable } from '../objective.js';
import { lockFolder } from '../runs/run-lock.js';
import { type StudySizes, type Workbench, openWorkbench } from './workbench.js';

/** A row of a study; plain JSON. */
export type StudyRow = Record<string, number | string | number[] | null>;

/** An experiment of the paper at the size of the embedded teacher. One file each. */
export interface Study<M extends Prunable = DiT> {
  name: string;
  /** Families whose teacher it can be run on. Default: DiT alone. */
  families?: readonly TeacherFamily[];
  /** What is asked. */
  title: string;
  /** What the paper found, with its numbers. */
  paper: string;
  /** Adds the rows that are not there yet. */
  run(bench: Workbench<M>, rows: StudyRows): Promise<void>;
  /** Columns of the table: a row's key, its title, and digits of numbers. */
  columns: readonly (readonly [key: string, title: string, digits?: number])[];
  /** Key by whose values rows are put together, over seeds. Default: none, every row is shown. */
  by?: string;
  /** How it was measured, in place of what the others have in common: masks, recovery, samples. */
  setting?(sizes: StudySizes): string;
  /** Plots, as SVG by name. */
  plots?(rows: readonly StudyRow[]): Record<string, string>;
}

/** The rows of a study on disk: each is there as soon as it is known, so that a run that was stopped goes on. */
export interface StudyRows {
  readonly rows: readonly StudyRow[];
  /** The row with these values, or what `make` makes, which is stored. */
  once(key: StudyRow, make: () => Promise<StudyRow>): Promise<StudyRow>;
}

interface Stored {
  study: string;
  settings: string;
  /** Commands that made rows, and machines that they were made on. */
  command: string;
  machine: string;
  /** Of the newest row. */
  date: string;
  rows: StudyRow[];
}

/** Options of {@link runStudy}. */
export interface RunStudyOptions extends LongTaskOptions {
  sizes: StudySizes;
  out: string;
  command: string;
  /** Whose teacher. Default `'DiT'`. */
  family?: TeacherFamily;
}

/**
 * Runs a study, or goes on with it: `out/<name>.json` has its rows, `out/<name>.md` its table, `out/<name>-*.svg` its plots; `<name>-sit` where the teacher is no DiT.
 * What `out/<name>.discussion.md` says, which is written by hand, stands below the table.
 * Other seeds add rows to those that are there.
 * @throws CheckpointError where `out` holds the study with other settings, or another process runs it there
 */
export async function runStudy(given: Study | Study<Prunable>, { sizes, out, command, family = 'DiT', ...context }: RunStudyOptions): Promise<void> {
  const families: readonly TeacherFamily[] = given.families ?? ['DiT'];
  if (!families.includes(family)) throw new ArgumentError('--family', family, `${families.join(' or ')} for the study ${given.name}`);
  await makeFolder(out);
  // the families were checked
  const study = { ...(given as Study<Prunable>), name: family === 'DiT' ? given.name : `${given.name}-${family.toLowerCase()}` };
  // the rows of two that write at the same time would take each other's place
  const unlock = await lockFolder(out, `${study.name}.lock`);
  let bench: Workbench<Prunable> | undefined;
  try {
    bench = await openWorkbench(sizes, context, family);
    const path = join(out, `${study.name}.json`);
    const settings = JSON.stringify({ ...sizes, teacher: bench.sha256 });
    const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown CPU'}, Node ${process.versions.node}`;
    const stored = (await readStored(path, settings)) ?? { study: study.name, settings, command, machine, date: today(), rows: [] };
    const discussion = (): Promise<string> => readFile(join(out, `${study.name}.discussion.md`), 'utf8').catch(() => '');
    const write = async (): Promise<void> => {
      await writeFileAtomic(path, JSON.stringify(stored, null, 1));
      await writeFileAtomic(join(out, `${study.name}.md`), page(study, stored, sizes, family, await discussion()));
      for (const [name, svg] of Object.entries(study.plots?.(stored.rows) ?? {})) await writeFileAtomic(join(out, `${study.name}-${name}.svg`), standaloneSvg(svg));
    };
    await write();
    await study.run(bench, {
      rows: stored.rows,
      once: async (key, make) => {
        const entries = Object.entries(key);
        const there = stored.rows.find((row) => entries.every(([name, value]) => String(row[name]) === String(value)));
        if (there !== undefined) return there;
        // as it is read again: what is no number is null
        const row = JSON.parse(JSON.stringify({ ...key, ...(await make()) })) as StudyRow;
        stored.rows.push(row);
        Object.assign(stored, { date: today(), command: together(stored.command, command), machine: together(stored.machine, machine) });
        await write();
        return row;
      },
    });
    await write();
    console.log(page(study, stored, sizes, family, await discussion()));
  } finally {
    bench?.dispose();
    await unlock();
  }
}

/** A list with one more, where it is not there yet. */
const together = (list: string, one: string): string => (`; ${list}; `.includes(`; ${one}; `) ? list : `${list}; ${one}`);

const today = (): string => new Date().toISOString().slice(0, 10);

async function readStored(path: string, settings: string): Promise<Stored | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw new CheckpointError(`${path} cannot be read: ${message}`, { cause });
  }
  let [stored, same]: [Stored | undefined, boolean] = [undefined, false];
  try {
    stored = JSON.parse(text) as Stored;
    same = withoutSeeds(stored.settings) === withoutSeeds(settings);
  } catch (cause) {
    throw new CheckpointError(`${path} holds no study: ${(cause as Error).message}; move it away or use another --out`, { cause });
  }
  if (!same) throw new CheckpointError(`${path} holds the study with other settings or another teacher; move it away or use another --out`);
  return stored;
}

/** What rows of one table have in common; seeds they need not. */
function withoutSeeds(settings: string): string {
  const { seeds: _, ...rest } = JSON.parse(settings) as Record<string, unknown>;
  return JSON.stringify(rest);
}

const line = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |`;

function page({ title, paper, columns, by, name, setting, plots }: Study<Prunable>, { rows, command, machine, date }: Stored, sizes: StudySizes, family: TeacherFamily, discussion: string): string {
  const head = [line(columns.map(([, heading]) => heading)), line(columns.map(() => '---'))];
  const table = (list: readonly StudyRow[]): string[] => [...head, ...list.map((row) => line(columns.map(([key, , digits]) => cell(row[key], digits))))];
  const groups = by === undefined ? [] : [...new Set(rows.map((row) => row[by]))].map((value) => rows.filter((row) => row[by] === value));
  return [
    `# ${title}${family === 'DiT' ? '' : `: ${family}`}`,
    '',
    `Fashion-MNIST, the embedded ${family} of 12 layers. ${setting?.(sizes) ?? common(sizes, family)}`,
    '',
    ...(by === undefined ? table(rows) : [...head, ...groups.map((group) => line(columns.map(([key, , digits]) => (key === 'seed' ? group.length : spread(group.map((row) => row[key]), digits)))))]),
    '',
    `The paper, on ImageNet: ${paper}`,
    '',
    ...(discussion === '' ? [] : [discussion.trim(), '']),
    ...Object.keys(plots?.(rows) ?? {}).flatMap((plot) => [`![${plot}](${name}-${plot}.svg)`, '']),
    ...(by === undefined ? [] : ['## Every run', '', ...table(rows), '']),
    `Command: \`${command}\`. ${machine}, ${date}.`,
    '',
  ].join('\n');
}

function common({ maskSteps, recoverySteps, samples, samplingSteps }: StudySizes, family: TeacherFamily): string {
  const drawn = family === 'DiT' ? `DPM-Solver++, ${samplingSteps} steps` : family === 'SiT' ? `Heun’s method, ${Math.round(samplingSteps / 2)} steps` : `${samplingSteps} iterations`;
  return `Mask learning: ${maskSteps} steps; recovery: ${recoverySteps} steps of masked RepKD unless said; measured on ${samples} samples (${drawn}, guidance 1.5) against 10,000 test images on the features of the embedded classifier: compare the numbers with each other, not with published ones.`;
}

function cell(value: StudyRow[string] | undefined, digits = 3): string {
  if (value === undefined || value === null) return '';
  if (Array.isArray(value)) return value.join(' ');
  return typeof value === 'number' && !Number.isInteger(value) ? value.toFixed(digits) : String(value);
}

/** Mean ± standard deviation of numbers; what they have in common of others. */
function spread(values: readonly (StudyRow[string] | undefined)[], digits = 3): string {
  const numbers = values.filter((v) => typeof v === 'number');
  if (numbers.length === values.length && numbers.length > 0) {
    const mean = numbers.reduce((a, b) => a + b, 0) / numbers.length;
    if (numbers.length === 1) return cell(mean, digits);
    const deviation = Math.sqrt(numbers.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (numbers.length - 1));
    return `${mean.toFixed(digits)} ± ${deviation.toFixed(digits)}`;
  }
  const texts = new Set(values.map((v) => cell(v, digits)));
  return texts.size === 1 ? [...texts][0]! : '';
}
