import { type Collective, singleCollective } from '@tinyfusion/train';
import { launchedByMpi } from './launched-by-mpi.js';
import { mpiCollective } from './mpi/mpi-collective.js';

/**
 * All processes that mpirun, mpiexec or srun has started together with this one, or this one alone.
 * @throws BackendError where there are several and MPI cannot be had
 */
export async function defaultCollective(): Promise<Collective> {
  return (launchedByMpi()?.size ?? 1) > 1 ? mpiCollective() : singleCollective();
}
