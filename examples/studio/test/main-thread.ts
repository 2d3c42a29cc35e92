import type { Browser, Page } from 'playwright';

interface TraceEvent {
  readonly name: string;
  readonly ph: string;
  readonly pid: number;
  readonly tid: number;
  /** Wall and processor time, µs. */
  readonly dur?: number;
  readonly tdur?: number;
  readonly args: { readonly name?: string };
}

/** The longest task of the page's main thread, ms. */
export interface LongestTask {
  /** By the clock, with the time that the machine gave to others. */
  readonly wall: number;
  /** What the thread itself worked. */
  readonly worked: number;
  readonly tasks: number;
}

/** Watches the main thread while something is done. Only one trace of a browser can run at a time. */
export async function watched(browser: Browser, page: Page, act: () => Promise<void>): Promise<LongestTask> {
  await browser.startTracing(page, { categories: ['toplevel'] });
  let trace: Buffer;
  try {
    await act();
  } finally {
    trace = await browser.stopTracing();
  }
  const { traceEvents } = JSON.parse(trace.toString()) as { traceEvents: TraceEvent[] };
  // of the process of the page's worker: a browser keeps a spare one, which starts while the page works
  const named = (thread: string): TraceEvent[] => traceEvents.filter(({ name, args }) => name === 'thread_name' && args.name === thread);
  const own = new Set(named('DedicatedWorker thread').map(({ pid }) => pid));
  const mains = new Set(named('CrRendererMain').flatMap(({ pid, tid }) => (own.has(pid) ? [`${pid} ${tid}`] : [])));
  const tasks = traceEvents.filter(({ name, ph, pid, tid }) => ph === 'X' && name === 'ThreadControllerImpl::RunTask' && mains.has(`${pid} ${tid}`));
  return { wall: Math.max(0, ...tasks.map(({ dur = 0 }) => dur / 1000)), worked: Math.max(0, ...tasks.map(({ tdur = 0 }) => tdur / 1000)), tasks: tasks.length };
}
