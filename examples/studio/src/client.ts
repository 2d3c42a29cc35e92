import type { Memory, Reply, Request } from './protocol';
import type { Studio } from './worker/worker';

type Procedure = keyof Studio;
type Args<P extends Procedure> = Parameters<Studio[P]> extends [] ? object : Parameters<Studio[P]>[0];
type Event<P extends Procedure> = Parameters<Studio[P]>[1] extends { emit(event: infer E, transfer?: Transferable[]): void } ? E : never;
type Result<P extends Procedure> = Awaited<ReturnType<Studio[P]>>;

/** An error of the worker, with the code that it has there. */
export class StudioError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }

  get cancelled(): boolean {
    return this.code === 'CANCELLED';
  }
}

/** What a call may be given beside its arguments. */
export interface CallOptions<P extends Procedure> {
  /** Aborts the call, over there too. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: Event<P>) => void;
}

interface Waiting {
  readonly onEvent: ((event: never) => void) | undefined;
  readonly resolve: (result: never) => void;
  readonly reject: (error: Error) => void;
}

const worker = new Worker(new URL('./worker/worker.ts', import.meta.url), { type: 'module', name: 'studio' });
const waiting = new Map<number, Waiting>();
let calls = 0;
let ended: StudioError | undefined;
let onMemory: (memory: Memory) => void = () => {};

worker.addEventListener('message', ({ data }: MessageEvent<Reply>) => {
  if ('memory' in data) return onMemory(data.memory);
  const call = waiting.get(data.call);
  if (call === undefined) return;
  if ('event' in data) return call.onEvent?.(data.event as never);
  waiting.delete(data.call);
  if ('error' in data) call.reject(new StudioError(data.error.code, data.error.message));
  else call.resolve(data.result as never);
});

worker.addEventListener('error', (event) => {
  ended = new StudioError('WORKER', `the worker has ended: ${event.message || 'it could not be loaded'}; reload the page`);
  for (const { reject } of waiting.values()) reject(ended);
  waiting.clear();
});

/** Calls the worker. @throws StudioError what it throws there */
export function call<P extends Procedure>(name: P, args: Args<P>, { signal, onEvent }: CallOptions<P> = {}): Promise<Result<P>> {
  const id = calls++;
  return new Promise<Result<P>>((resolve, reject) => {
    if (ended !== undefined) return reject(ended);
    waiting.set(id, { onEvent, resolve, reject } as Waiting);
    worker.postMessage({ call: id, name, args } satisfies Request);
    const abort = (): void => worker.postMessage({ abort: id } satisfies Request);
    if (signal?.aborted === true) abort();
    else signal?.addEventListener('abort', abort, { once: true });
  });
}

/** Where the worker's memory is told, a few times a second while it works. */
export const watchMemory = (told: (memory: Memory) => void): void => void (onMemory = told);
