/**
 * Processes that a cluster's launcher started, over the system's MPI.
 * @packageDocumentation
 */
export { defaultCollective } from './default-collective.js';
export { launchedByMpi, type MpiLaunch } from './launched-by-mpi.js';
export { mpiCollective, type MpiCollectiveOptions } from './mpi/mpi-collective.js';
