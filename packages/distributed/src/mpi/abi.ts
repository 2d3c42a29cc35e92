import { BackendError } from '@tinyfusion/core';
import type { MpiLibrary } from './library.js';

/** A handle: an address with Open MPI, a number with MPICH. */
export type Handle = bigint | number;

/** What C programs get from `mpi.h`; implementations differ, but MPICH's descendants agree with it. */
export interface MpiAbi {
  /** C type of handles, all integers as far as a call is concerned. */
  handle: 'uintptr_t' | 'int';
  world: Handle;
  types: { float: Handle; double: Handle; byte: Handle };
  sum: Handle;
  max: Handle;
  /** MPI_IN_PLACE and MPI_STATUS_IGNORE, as addresses. */
  inPlace: bigint;
  ignoreStatus: bigint;
  /** Room for a request. */
  newRequest(): BigUint64Array | Int32Array;
}

/**
 * The binary interface of a library, told by its version string.
 * @throws BackendError where it is neither Open MPI nor of MPICH's family
 */
export function abiOf({ koffi, library, version, name }: MpiLibrary): MpiAbi {
  if (/Open MPI/i.test(version)) {
    const address = (symbol: string): bigint => koffi.address(library.symbol(symbol, 'void *'));
    return {
      handle: 'uintptr_t',
      world: address('ompi_mpi_comm_world'),
      types: { float: address('ompi_mpi_float'), double: address('ompi_mpi_double'), byte: address('ompi_mpi_byte') },
      sum: address('ompi_mpi_op_sum'),
      max: address('ompi_mpi_op_max'),
      inPlace: 1n,
      ignoreStatus: 0n,
      newRequest: () => new BigUint64Array(1),
    };
  }
  if (/MPICH|MVAPICH|Intel\(R\) MPI/i.test(version)) {
    return {
      handle: 'int',
      world: 0x44000000,
      types: { float: 0x4c00040a, double: 0x4c00080b, byte: 0x4c00010d },
      sum: 0x58000003,
      max: 0x58000001,
      inPlace: -1n,
      ignoreStatus: 1n,
      newRequest: () => new Int32Array(1),
    };
  }
  throw new BackendError(`${name} is an MPI whose binary interface is not known: ${version.split('\n')[0]}. Use Open MPI, or MPICH and what is compatible with it (Intel MPI, MVAPICH, Cray MPICH)`);
}
