/** What a launcher says of the job that it started. */
export interface MpiLaunch {
  /** Processes of the job. */
  size: number;
  /** The variable that says so. */
  variable: string;
}

/**
 * Variables in which launchers tell every process how many there are: Open MPI's mpirun, MPICH's and Intel's mpiexec,
 * MVAPICH's, and Slurm's srun. SLURM_NTASKS is not among them: an sbatch script has it too, and is no rank.
 */
const VARIABLES = ['OMPI_COMM_WORLD_SIZE', 'PMI_SIZE', 'MV2_COMM_WORLD_SIZE', 'SLURM_STEP_NUM_TASKS'];

/** How many processes mpirun, mpiexec or srun has started together with this one; `undefined` where none of them has. */
export function launchedByMpi(environment: Readonly<Record<string, string | undefined>> = process.env): MpiLaunch | undefined {
  for (const variable of VARIABLES) {
    const size = Number(environment[variable] ?? Number.NaN);
    if (Number.isInteger(size) && size > 0) return { size, variable };
  }
  return undefined;
}
