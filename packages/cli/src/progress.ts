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

function bars(): ProgressDisplay {
  let bar: SingleBar | undefined;
  let task: string | undefined;
  const close = (): void => {
    bar?.stop();
    bar = undefined;
    task = undefined;
  };
  return {
    close,
    onProgress: (event) => {
      if (event.task !== task) {
        close();
        task = event.task;
        bar = new SingleBar({ format: '{task} {bar} {value}/{total} {unit} | {rate} | {left} left{numbers}', hideCursor: true, barsize: 24, stream: process.stderr });
        bar.start(event.total ?? 0, 0, { task: event.task.padEnd(28), unit: event.unit, rate: '', left: '?', numbers: '' });
        started = performance.now();
      }
      bar?.update(event.step, { ...timing(event, started), numbers: numbers(event) });
      if (event.step === event.total) close();
    },
  };
}

let started = 0;

function lines(): ProgressDisplay {
  let task: string | undefined;
  let from = 0;
  let last = 0;
  return {
    close: () => {},
    onProgress: (event) => {
      const now = performance.now();
      if (event.task !== task) {
        task = event.task;
        from = now;
        last = 0;
      }
      const done = event.step === event.total;
      if (!done && now - last < LINE_SECONDS * 1000) return;
      last = now;
      const { rate, left } = timing(event, from);
      console.error(`${event.task}: ${event.step}${event.total === undefined ? '' : `/${event.total}`} ${event.unit}, ${rate}${done ? '' : `, ${left} left`}${numbers(event)}`);
    },
  };
}

function timing({ step, total, unit }: ProgressEvent, from: number): { rate: string; left: string } {
  const seconds = (performance.now() - from) / 1000;
  // the first report comes at the end of the first unit, when the clock has only begun
  const perSecond = step > 1 && seconds > 0 ? (step - 1) / seconds : 0;
  const rate = perSecond === 0 ? '' : `${perSecond >= 10 ? perSecond.toFixed(0) : perSecond.toFixed(2)} ${unit}/s`;
  const left = total === undefined || perSecond === 0 ? '?' : duration((total - step) / perSecond);
  return { rate, left };
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
