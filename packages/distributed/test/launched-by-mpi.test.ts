import { launchedByMpi } from '@tinyfusion/distributed';
import { expect, it } from 'vitest';
import { abiOf } from '../src/mpi/abi.js';
import type { MpiLibrary } from '../src/mpi/library.js';

it('launchers say how many ranks there are', () => {
  expect(launchedByMpi({ OMPI_COMM_WORLD_SIZE: '8' })).toEqual({ size: 8, variable: 'OMPI_COMM_WORLD_SIZE' });
  expect(launchedByMpi({ PMI_SIZE: '2' })?.size).toBe(2);
  expect(launchedByMpi({ SLURM_STEP_NUM_TASKS: '4', SLURM_NTASKS: '4' })?.size).toBe(4);
});

it('a shell inside of a Slurm allocation is no rank, nor is nonsense', () => {
  expect(launchedByMpi({ SLURM_NTASKS: '16', SLURM_JOB_ID: '1' })).toBeUndefined();
  expect(launchedByMpi({ OMPI_COMM_WORLD_SIZE: '' })).toBeUndefined();
  expect(launchedByMpi({})).toBeUndefined();
});

it('the binary interface is told by the version string', () => {
  const library = (version: string): MpiLibrary => ({ version, name: 'libmpi.so', koffi: { address: (value: bigint) => value }, library: { symbol: (name: string) => BigInt(name.length) } }) as unknown as MpiLibrary;
  expect(abiOf(library('Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4'))).toMatchObject({ handle: 'uintptr_t', world: 19n, inPlace: 1n });
  for (const version of ['MPICH Version:\t4.0.2', 'Intel(R) MPI Library 2021.9 for Linux* OS', 'MVAPICH2 Version: 2.3.7', 'MPI VERSION    : CRAY MPICH version 8.1.25']) expect(abiOf(library(version))).toMatchObject({ handle: 'int', world: 0x44000000, inPlace: -1n });
  expect(() => abiOf(library('Platform MPI 09.01'))).toThrow(/binary interface is not known: Platform MPI/);
});
