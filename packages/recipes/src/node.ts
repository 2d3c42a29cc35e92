/**
 * Jobs that read and write files, under Node.
 * @packageDocumentation
 */
export {
  distillJob,
  evaluateImagesJob,
  evaluateJob,
  learnMasksJob,
  pruneJob,
  sampleJob,
  trainJob,
  type DistillJob,
  type EvaluateJob,
  type JobContext,
  type LearnMasksJob,
  type PruneJob,
  type SampleJob,
  type TrainJob,
} from './jobs.js';
export { compareJob, type CompareJob, type ComparedChoice } from './compare.js';
export { fastSizes, quickstart, quickstartSizes, type QuickstartOptions, type QuickstartResult, type QuickstartSizes } from './quickstart.js';
export { convertJob, inspect, inspectJob, type ConvertJob, type InspectJob, type Inspection, type PruneFileJob } from './checkpoint-jobs.js';
