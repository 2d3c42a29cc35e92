import { CancelledError, type LongTaskOptions, TinyFusionError } from '@tinyfusion/core';
import type { BackendName } from '@tinyfusion/kernels';
import { progressDisplay } from './progress.js';

/** Options of every job. */
export interface JobOptions {
  /** Absent for jobs that compute nothing. */
  backend?: BackendName | 'auto';
  debug?: boolean;
}

/** What a job gets to work with. */
export interface JobContext extends LongTaskOptions {
  signal: AbortSignal;
  /** The backend that runs. */
  backend: string;
  /** The command as it was typed, for records. */
  command: string;
}

/**
 * Runs a job: starts the backend, shows progress, turns Ctrl-C into an orderly end and errors into one line.
 * Sets the exit code: 0, 1 for an error, 130 where it was cancelled.
 */
export async function runJob({ backend, debug = false }: JobOptions, job: (context: JobContext) => Promise<void>): Promise<void> {
  const controller = new AbortController();
  const stop = (): void => {
    if (controller.signal.aborted) process.exit(130); // asked twice: now
    console.error('\nstopping after this step; press Ctrl-C again to stop at once');
    controller.abort();
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  const display = progressDisplay();
  const command = `tinyfusion ${process.argv.slice(2).join(' ')}`;
  try {
    if (backend === undefined) {
      await job({ signal: controller.signal, onProgress: display.onProgress, backend: 'none', command });
      return;
    }
    // a job that computes nothing starts without
    const [{ useBackend }, { installWebGPU }] = await Promise.all([import('@tinyfusion/kernels'), import('@tinyfusion/kernels/node'), import('@tensorflow/tfjs')]);
    const gpu = backend === 'auto' || backend === 'webgpu' ? await installWebGPU() : undefined;
    const choice = await useBackend({ prefer: backend });
    console.error(`backend: ${choice.name} (${choice.why}${gpu?.installed === false && backend === 'webgpu' ? `; ${gpu.why}` : ''})`);
    await job({ signal: controller.signal, onProgress: display.onProgress, backend: choice.name, command });
  } catch (error) {
    display.close();
    if (error instanceof CancelledError || (TinyFusionError.isInstance(error) && error.code === 'CANCELLED')) {
      console.error('stopped. What is finished is kept; the same command goes on from there.');
      process.exitCode = 130;
    } else {
      report(error, debug);
      process.exitCode = 1;
    }
  } finally {
    display.close();
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
}

/** One line about an error; the stack as well where it is asked for. */
function report(error: unknown, debug: boolean): void {
  if (debug) console.error(error);
  else if (TinyFusionError.isInstance(error)) console.error(`error: ${error.message}`);
  else console.error(`error: ${error instanceof Error ? error.message.split('\n')[0] : String(error)} (run again with --debug for the stack)`);
}
