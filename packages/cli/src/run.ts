import { ArgumentError, CancelledError, type LongTaskOptions, TinyFusionError, printable } from '@tinyfusion/core';
import { defaultCollective, launchedByMpi } from '@tinyfusion/distributed';
import type { BackendName } from '@tinyfusion/kernels';
import type { Collective } from '@tinyfusion/train';
import { progressDisplay } from './progress.js';
import type { ReplicaData } from './replica.js';
import { type ThreadJob, doThreadJob } from './thread-jobs.js';

/** Options of every job. */
export interface JobOptions {
  /** Absent for jobs that compute nothing. */
  backend?: BackendName | 'auto';
  debug?: boolean;
  /** Threads that share the job. Default 1: this one alone. */
  workers?: number;
  /** Folder that the run is kept in. */
  run?: string;
}

/** What is particular to a job. */
export interface JobKind {
  /** Whether the processes of mpirun share it; the others are refused there. Default: those that threads share are. */
  shared?: boolean;
  /** Whether the same command goes on from what is finished. Default: where there is a `run` to keep it in. */
  resumes?: boolean;
}

/** What a job gets to work with. */
export interface JobContext extends LongTaskOptions {
  signal: AbortSignal;
  /** The backend that runs. */
  backend: string;
  /** The command as it was typed, for records. */
  command: string;
  /** The processes that share the job, where there are several. */
  collective?: Collective | undefined;
}

/**
 * Runs a job: starts the backend, shows progress, turns Ctrl-C into an orderly end and errors into one line.
 * Sets the exit code: 0, 1 for an error, 130 where it was cancelled. Under mpirun only rank 0 shows anything but errors,
 * and an error ends the job on all ranks.
 */
export async function runJob({ backend, debug = false, workers = 1, run }: JobOptions, job: ((context: JobContext) => Promise<void>) | ThreadJob, { shared = typeof job === 'object', resumes = run !== undefined }: JobKind = {}): Promise<void> {
  const controller = new AbortController();
  let collective: Collective | undefined;
  const leads = (): boolean => (collective?.rank ?? 0) === 0;
  const stop = (): void => {
    if (controller.signal.aborted) process.exit(130); // asked twice: now
    if (leads()) console.error('\nstopping after this step; press Ctrl-C again to stop at once');
    controller.abort();
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  const display = progressDisplay();
  const command = `tinyfusion ${process.argv.slice(2).map(quoted).join(' ')}`;
  try {
    const ranks = launchedByMpi()?.size ?? 1;
    if (ranks > 1 && !shared) throw new ArgumentError('the number of processes', ranks, 'one, as this job is not shared among several (train, distill, learn-masks, learn-branches, sample, evaluate and stats are); start it without mpirun');
    collective = ranks > 1 ? await defaultCollective() : undefined;
    if (workers > 1 && typeof job === 'object') {
      await inThreads(job, { workers, ranks, backend: backend ?? 'auto', command, signal: controller.signal, onProgress: display.onProgress });
      return;
    }
    const act = typeof job === 'function' ? job : (context: JobContext) => doThreadJob(job, context);
    if (backend === undefined) {
      await act({ signal: controller.signal, onProgress: display.onProgress, backend: 'none', command });
      return;
    }
    // a job that computes nothing starts without
    const [{ useBackend }, { installWebGPU }, { enableProdMode }] = await Promise.all([import('@tinyfusion/kernels'), import('@tinyfusion/kernels/node'), import('@tensorflow/tfjs')]);
    enableProdMode(); // tfjs would advise a backend of its own
    const gpu = backend === 'auto' || backend === 'webgpu' ? await installWebGPU() : undefined;
    const choice = await useBackend({ prefer: backend });
    if (leads()) console.error(`backend: ${choice.name} (${choice.why}${gpu?.installed === false && backend === 'webgpu' ? `; ${gpu.why}` : ''})`);
    await act({ signal: controller.signal, onProgress: leads() ? display.onProgress : undefined, backend: choice.name, command, collective });
    await collective?.close();
  } catch (thrown) {
    display.close();
    const error = firstOf(thrown);
    if (error instanceof CancelledError || (TinyFusionError.isInstance(error) && error.code === 'CANCELLED')) {
      if (leads()) console.error(resumes ? 'stopped. What is finished is kept; the same command goes on from there.' : 'stopped. The same command begins anew; with --run <folder>, where a job has it, it would go on.');
      process.exitCode = 130;
      await collective?.close();
    } else {
      report(debug ? thrown : error, debug, collective);
      process.exitCode = 1;
    }
  } finally {
    display.close();
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
}

/** What went wrong first, where what it left could not be closed either. */
const firstOf = (error: unknown): unknown => (error instanceof Error && 'suppressed' in error ? firstOf(error.suppressed) : error);

/** An argument as a shell takes it. */
const quoted = (argument: string): string => (/^[\w@%+=:,./~^-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", "'\\''")}'`);

/** How long a step of a model may take until a thread that does not stop is ended, ms. */
const GRACE = 60_000;

/** Has several threads do a job. A GPU would be kept busy by one of them, so they compute on processors. */
async function inThreads(job: ThreadJob, { workers, ranks, backend, command, signal, onProgress }: { workers: number; ranks: number } & Omit<ReplicaData, 'job'> & LongTaskOptions): Promise<void> {
  if (ranks > 1) throw new ArgumentError('--workers', workers, `1 under mpirun, whose ${ranks} processes share the job`);
  if (backend === 'webgpu') throw new ArgumentError('--workers', workers, '1 with --backend webgpu, which one thread keeps busy');
  const { runReplicas } = await import('@tinyfusion/distributed/workers');
  await runReplicas<void, ReplicaData>(new URL('./replica.js', import.meta.url), { size: workers, workerData: { job, backend, command }, grace: GRACE, signal, onProgress });
}

/** One line about an error; the stack as well where it is asked for. */
function report(error: unknown, debug: boolean, collective: Collective | undefined): void {
  const what = collective === undefined ? 'error' : `error on rank ${collective.rank} of ${collective.size}`;
  if (debug) console.error(error);
  else if (TinyFusionError.isInstance(error)) console.error(`${what}: ${printable(error.message)}`);
  else console.error(`${what}: ${error instanceof Error ? printable(error.message.split('\n')[0]!) : printable(String(error))} (run again with --debug for the stack)`);
}
