/**
 * Worker threads of Node, each with a backend of its own.
 * @packageDocumentation
 */
export { mapOverWorkers, type MapOverWorkersOptions } from './workers/map-over-workers.js';
export type { MappingModule, Replica, ReplicaModule } from './workers/protocol.js';
export { runReplicas, type RunReplicasOptions } from './workers/run-replicas.js';
