import type { OnProgress, ProgressEvent } from '@tinyfusion/core';
import { SingleBar } from 'cli-progress';

/** Shows progress on stderr: a bar on a terminal, a plain line every few seconds in a log. */
export interface ProgressDisplay {
  onProgress: OnProgress;
  /** Ends the bar that is open. */
  close(): void;
}

/** Seconds between two lines of a log. */
const LINE_SECONDS = 5;

export function progressDisplay(): ProgressDisplay {
  return process.stderr.isTTY ? bars() : lines();
}

/** When a task was first heard of, and how far it was then. */
interface Start {
  task: string;
  at: number;
  step: number;
}

const startOf = ({ task, step }: ProgressEvent): Start => ({ task, at: performance.now(), step });

function bars(): ProgressDisplay {
  let bar: SingleBar | undefined;
  let start: Start | undefined;
  const close = (): void => {
    bar?.stop();
    bar = undefined;
    start = undefined;
  };
  return {
    close,
    onProgress: (event) => {
      if (start?.task !== event.task) {
        close();
        start = startOf(event);
        bar = new SingleBar({ format: '{task} {bar} {value}/{total} {unit} {timing}', hideCursor: true, barsize: 24, stream: process.stderr });
        bar.start(event.total ?? 0, 0, { task: event.task.padEnd(28), unit: event.unit, timing: '' });
      }
      bar?.update(event.step, { timing: timing(event, start) + numbers(event) });
      if (event.step === event.total) close();
    },
  };
}

function lines(): ProgressDisplay {
  let start: Start | undefined;
  let last = 0;
  return {
    close: () => {},
    onProgress: (event) => {
      const now = performance.now();
      if (start?.task !== event.task) {
        start = startOf(event);
        last = now;
        console.error(`${event.task} …`);
      }
      const done = event.step === event.total;
      if (!done && now - last < LINE_SECONDS * 1000) return;
      last = now;
      console.error(`${event.task}: ${event.step}${event.total === undefined ? '' : `/${event.total}`} ${event.unit}${timing(event, start)}${numbers(event)}`);
      if (done) start = undefined; // one of the same name may follow, with a clock of its own
    },
  };
}

/** Rate and time left, from the second report on: the first comes when the clock has only begun. */
function timing({ step, total, unit }: ProgressEvent, start: Start): string {
  const seconds = (performance.now() - start.at) / 1000;
  if (step <= start.step || seconds < 0.05) return '';
  const perSecond = (step - start.step) / seconds;
  const rate = `${perSecond >= 10 ? perSecond.toFixed(0) : perSecond.toFixed(2)} ${unit}/s`;
  const left = total === undefined || step >= total ? '' : `, ${duration((total - step) / perSecond)} left`;
  return ` | ${rate}${left}`;
}

function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.ceil(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

function numbers({ values, note }: ProgressEvent): string {
  const list = Object.entries(values ?? {}).map(([name, value]) => `${name} ${value.toPrecision(3)}`);
  if (note !== undefined) list.push(note);
  return list.length === 0 ? '' : ` | ${list.join(', ')}`;
}
