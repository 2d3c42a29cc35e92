import type { EvaluateJob, SampleJob, StatsJob } from '@tinyfusion/recipes/node';
import type { JobContext } from './run.js';

const recipes = () => import('@tinyfusion/recipes/node');

/** Jobs that worker threads can share, by name. */
const threadJobs = {
  sample: async (context: JobContext, options: SampleJob) => (await recipes()).sampleJob(options, context),
  evaluate: async (context: JobContext, options: EvaluateJob, reference?: string, samples?: string) => (reference === undefined ? (await recipes()).evaluateJob(options, context) : (await recipes()).evaluateImagesJob(reference, samples, options, context)),
  stats: async (context: JobContext, options: StatsJob, images: readonly string[]) => (await recipes()).statsJob(images, options, context),
};

/** A job as it can be sent to a thread. */
export interface ThreadJob {
  name: keyof typeof threadJobs;
  /** What it is called with, after its context; plain values. */
  args: readonly unknown[];
}

/** Does such a job, alone or in one thread of several. */
export const doThreadJob = ({ name, args }: ThreadJob, context: JobContext): Promise<void> => (threadJobs[name] as (context: JobContext, ...args: readonly unknown[]) => Promise<void>)(context, ...args);
