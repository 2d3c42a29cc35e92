import { BackendError } from '@tinyfusion/core';
import type koffiModule from 'koffi';
import type { LibraryHandle } from 'koffi';
import { launchedByMpi } from '../launched-by-mpi.js';

type Koffi = typeof koffiModule;

/** A loaded MPI. */
export interface MpiLibrary {
  koffi: Koffi;
  library: LibraryHandle;
  /** The name it was found under. */
  name: string;
  /** The first line of what it says of itself. */
  version: string;
}

const names: Record<'open-mpi' | 'mpich', Partial<Record<NodeJS.Platform, readonly string[]>>> = {
  'open-mpi': { linux: ['libmpi.so.40', 'libmpi.so.20'], darwin: ['libmpi.40.dylib', '/opt/homebrew/lib/libmpi.40.dylib', '/usr/local/lib/libmpi.40.dylib'] },
  mpich: { linux: ['libmpi.so.12', 'libmpich.so.12', 'libmpi_cray.so.12'], darwin: ['libmpi.12.dylib', '/opt/homebrew/lib/libmpi.12.dylib', '/usr/local/lib/libmpi.12.dylib'] },
};

/**
 * Loads the system's MPI: the one at `path`, or the first that is found, of the launcher's kind before others.
 * @throws BackendError that says what to install
 */
export async function loadMpi(path: string | undefined): Promise<MpiLibrary> {
  let koffi: Koffi;
  try {
    koffi = (await import('koffi')).default;
  } catch (cause) {
    throw new BackendError(`MPI is called through koffi, which cannot be loaded here: ${(cause as Error).message}. Install @tinyfusion/distributed again on this machine, with optional dependencies`, { cause });
  }
  // UCX, below MPICH and many an Open MPI, tries its hooks on start with sbrk(+page), sbrk(-page): a page that another
  // of Node's threads is given in between is taken away again, and the process dies. It reads this when it is loaded
  process.env['UCX_MEM_EVENTS'] ??= 'n';
  const order = launchedByMpi()?.variable === 'OMPI_COMM_WORLD_SIZE' ? (['open-mpi', 'mpich'] as const) : (['mpich', 'open-mpi'] as const);
  const candidates = path === undefined ? [...order.flatMap((kind) => names[kind][process.platform] ?? []), process.platform === 'darwin' ? 'libmpi.dylib' : 'libmpi.so'] : [path];
  const failures: string[] = [];
  for (const name of candidates) {
    try {
      // MPI's own plug-ins look for its symbols
      const library = koffi.load(name, { global: true, lazy: true });
      return { koffi, library, name, version: versionOf(library) };
    } catch (error) {
      failures.push(`${name}: ${(error as Error).message}`);
    }
  }
  throw new BackendError(path === undefined ? `no MPI library was found (looked for ${candidates.join(', ')}). Install the one whose mpirun starts the job, e.g. apt-get install openmpi-bin, or mpich; or set TINYFUSION_MPI_LIBRARY to its file` : `the MPI library cannot be loaded: ${failures.join('; ')}`);
}

function versionOf(library: LibraryHandle): string {
  const [text, length] = [new Uint8Array(8192), new Int32Array(1)];
  (library.func('MPI_Get_library_version', 'int', ['void *', 'void *']) as (text: Uint8Array, length: Int32Array) => number)(text, length);
  return new TextDecoder().decode(text.subarray(0, length[0])).replace(/\0/g, '').trim();
}
