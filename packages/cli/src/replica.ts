import { enableProdMode } from '@tensorflow/tfjs';
import type { Replica } from '@tinyfusion/distributed/workers';
import { type BackendName, useBackend } from '@tinyfusion/kernels';
import { type ThreadJob, doThreadJob } from './thread-jobs.js';

/** What every thread of a job is given. */
export interface ReplicaData {
  job: ThreadJob;
  backend: BackendName | 'auto';
  command: string;
}

/** One thread of a job: a backend of its own, and the job as one rank of several. Rank 0 says what is said. */
export async function run({ rank, size, collective, data: { job, backend, command }, signal, onProgress }: Replica<ReplicaData>): Promise<void> {
  enableProdMode(); // tfjs would advise a backend of its own
  const { name } = await useBackend({ prefer: backend });
  if (rank === 0) console.error(`backend: ${name}, in ${size} threads`);
  await doThreadJob(job, { signal, onProgress: rank === 0 ? onProgress : undefined, backend: name, command, collective });
}
