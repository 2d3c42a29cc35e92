import { CancelledError, TinyFusionError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { Reply, Request } from '../protocol';

/** What a procedure is given beside its arguments. */
export interface Context<E> {
  readonly signal: AbortSignal;
  /** Sends something on the way to the result. */
  emit(event: E, transfer?: Transferable[]): void;
}

/** Something the page can call: arguments in, events on the way, a result. */
export type Procedures = Readonly<Record<string, (args: never, context: Context<never>) => Promise<unknown>>>;

/**
 * Answers the page. Calls run one after the other, as they share the device and the models; one that is aborted while it
 * waits is answered at once, and never starts.
 */
export function serve(procedures: Procedures): void {
  const waiting = new Set<number>();
  let running: { readonly call: number; readonly controller: AbortController } | undefined;
  let last: Promise<void> = Promise.resolve();
  const post = (reply: Reply, transfer: Transferable[] = []): void => self.postMessage(reply, { transfer });
  const told = { at: 0 };
  const tellMemory = (): void => {
    if (performance.now() - told.at < 250 || tf.getBackend() === undefined) return;
    told.at = performance.now();
    const { numTensors, numBytes } = tf.memory();
    post({ memory: { tensors: numTensors, bytes: numBytes } });
  };

  function refuse(call: number, error: unknown): void {
    const known = TinyFusionError.isInstance(error);
    if (!known) console.error(error);
    post({ call, error: { name: error instanceof Error ? error.name : 'Error', code: known ? error.code : 'UNEXPECTED', message: error instanceof Error ? error.message : String(error) } });
  }

  async function answer(call: number, name: string, args: unknown): Promise<void> {
    if (!waiting.delete(call)) return;
    const controller = new AbortController();
    running = { call, controller };
    try {
      const context: Context<unknown> = {
        signal: controller.signal,
        emit: (event, transfer) => {
          post({ call, event }, transfer);
          tellMemory();
        },
      };
      const result = await procedures[name]!(args as never, context as Context<never>);
      post({ call, result });
    } catch (error) {
      refuse(call, error);
    } finally {
      running = undefined;
      told.at = 0;
      tellMemory();
    }
  }

  self.addEventListener('message', ({ data }: MessageEvent<Request>) => {
    if ('abort' in data) {
      if (waiting.delete(data.abort)) refuse(data.abort, new CancelledError('what waited'));
      else if (running?.call === data.abort) running.controller.abort();
      return;
    }
    const { call, name, args } = data;
    waiting.add(call);
    last = last.then(() => answer(call, name, args));
  });
}
