import type { JobContext } from './context.js';
import { watchRun } from '../watch/watch-run.js';

/** Options of `tinyfusion watch`. */
export interface WatchJob {
  port?: number;
  /** Minutes without anybody looking after which it ends. */
  idle: number;
}

/** Shows a run in a page of this machine while it goes on. */
export async function watchJob(path: string, { port, idle }: WatchJob, { signal }: Pick<JobContext, 'signal'>): Promise<void> {
  await watchRun(path, { ...(port === undefined ? {} : { port }), idle: 60_000 * idle, signal, onReady: (url) => console.log(`${url} shows ${path}; it ends by itself ${idle} minutes after the page is closed, or by Ctrl-C`) });
}
