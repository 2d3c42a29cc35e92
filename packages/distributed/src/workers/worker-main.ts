import { createRng } from '@tinyfusion/core';
import { failThread, threadCollective } from '@tinyfusion/train';
import { parentPort, workerData } from 'node:worker_threads';
import type { FromWorker, MappingModule, ReplicaModule, ToWorker, WorkerStart } from './protocol.js';

// what runs in a thread: either one `run`, or items that are sent to it
const { module, data, replica, seed } = workerData as WorkerStart;
const port = parentPort!;
const send = (message: FromWorker): void => port.postMessage(message);
const fail = async (error: unknown): Promise<void> => {
  await printed();
  send({ error: error instanceof Error ? { message: error.message, stack: error.stack, code: (error as { code?: string }).code } : { message: String(error), stack: undefined, code: undefined } });
};
const stop = new AbortController();

/** Settles when the main thread has what was printed here: what is still on its way is lost when a thread is ended. */
const printed = async (): Promise<void> => void (await Promise.all([process.stdout, process.stderr].map((stream) => new Promise((resolve) => stream.write('', resolve)))));

async function runReplica({ rank, memory }: NonNullable<WorkerStart['replica']>): Promise<void> {
  port.on('message', () => stop.abort()); // nothing else is sent
  const { run } = (await import(module)) as ReplicaModule<unknown, unknown>;
  const collective = threadCollective(memory, rank);
  const result = await run({ rank, size: collective.size, collective, data, signal: stop.signal, onProgress: (progress) => rank === 0 && send({ progress }) });
  failThread(memory, rank, 'returned'); // who waits for this rank would do so for ever
  await printed();
  send({ result, index: rank });
}

async function mapItems(): Promise<void> {
  const { start } = (await import(module)) as MappingModule<unknown, unknown, unknown>;
  const map = await start(data);
  const streams = createRng(seed!);
  port.on('message', (message: ToWorker) => {
    if (!('item' in message)) return;
    const { item, index } = message;
    void map(item, streams.split(index)).then((result) => send({ result, index }), fail);
  });
  send({ ready: true });
}

await (replica === undefined ? mapItems() : runReplica(replica)).catch(fail);
