/**
 * Jobs that read and write files, under Node.
 * @packageDocumentation
 */
export type { JobContext } from './jobs/context.js';
export { distillJob, type DistillJob } from './jobs/distill.js';
export { encodeJob, type EncodeJob } from './jobs/encode.js';
export { encodeFolder, type EncodeFolderOptions } from './encode-folder.js';
export { evaluateImagesJob, evaluateJob, type EvaluateJob } from './jobs/evaluate.js';
export * from './files.js';
export { learnBranchesJob, type LearnBranchesJob } from './jobs/learn-branches.js';
export { learnMasksJob, type LearnMasksJob } from './jobs/learn-masks.js';
export { EventLog, readEvents, type RunEvent } from './runs/event-log.js';
export { packLatents } from './pack-latents.js';
export { RunFolder, type KeptOptions, type RunFolderOptions, type RunIdentity } from './runs/run-folder.js';
export { dataHash } from './runs/data-hash.js';
export { onnxJob, type OnnxJob } from './jobs/onnx.js';
export { packJob, type PackJob } from './jobs/pack.js';
export { makePack, type MakePackOptions } from './packs/make-pack.js';
export { openSampleSource } from './packs/open-sample-source.js';
export type { SampleSource, SampleSourceOptions, SourceSample } from './packs/sample-source.js';
export { pruneJob, type PruneJob } from './jobs/prune.js';
export { sampleJob, type SampleJob } from './jobs/sample.js';
export { studyJob, type StudyJob } from './jobs/study.js';
export { statsJob, type StatsJob } from './jobs/stats.js';
export { folderSource, type FolderSourceOptions } from './folder-source.js';
export { watchJob, type WatchJob } from './jobs/watch.js';
export { watchRun, type WatchRunOptions } from './watch/watch-run.js';
export { trainTeacherJob, type TrainTeacherJob } from './jobs/train-teacher.js';
export { trainJob, type TrainJob } from './jobs/train.js';
export { fastSizes, quickstart, quickstartSizes, type QuickstartOptions, type QuickstartResult, type QuickstartSizes } from './quickstart.js';
