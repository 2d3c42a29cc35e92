/**
 * Jobs on checkpoint files that run no model; apart, because they start at once.
 * @packageDocumentation
 */
export { fetchJob } from './jobs/fetch.js';
export { convertJob, inspect, inspectJob, type ConvertJob, type InspectJob, type Inspection } from './jobs/files.js';
export { type PruneFileJob } from './jobs/prune-file.js';
