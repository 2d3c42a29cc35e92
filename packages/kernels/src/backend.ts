import { ArgumentError, BackendError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { installWasmKernels } from './wasm.js';

/** Backends that {@link useBackend} can start. */
export type BackendName = 'webgpu' | 'wasm' | 'cpu';

/** What was chosen. */
export interface BackendChoice {
  name: BackendName;
  /** Why this one, and what spoke against those before it; a sentence to show. */
  why: string;
}

/** Options of {@link useBackend}. */
export interface UseBackendOptions {
  /** The backend to start, or `'auto'`: WebGPU on a hardware adapter, else WASM with SIMD, else plain JavaScript. Default `'auto'`. */
  prefer?: BackendName | 'auto';
}

const names: readonly BackendName[] = ['webgpu', 'wasm', 'cpu'];

/**
 * Starts a tfjs backend with this package's kernels and makes it the current one. A software WebGPU adapter is used
 * only where it is asked for by name. In Node WebGPU needs `@tinyfusion/kernels/node`.
 *
 * @throws BackendError where the backend asked for cannot start
 */
export async function useBackend({ prefer = 'auto' }: UseBackendOptions = {}): Promise<BackendChoice> {
  if (prefer !== 'auto' && !names.includes(prefer)) throw new ArgumentError('UseBackendOptions.prefer', prefer, `'auto' or one of ${names.join(', ')}`);
  if (prefer !== 'auto') {
    const problem = await start(prefer, true);
    if (problem !== undefined) throw new BackendError(`the ${prefer} backend cannot start: ${problem}. Leave the choice to "auto", or name one of ${names.filter((n) => n !== prefer).join(', ')}.`);
    return { name: prefer, why: 'asked for' };
  }
  const refused: string[] = [];
  for (const name of names) {
    const problem = await start(name, false);
    if (problem === undefined) return { name, why: refused.length === 0 ? 'a GPU is here' : refused.join('; ') };
    refused.push(`no ${name}: ${problem}`);
  }
  throw new BackendError(`no backend can start: ${refused.join('; ')}`);
}

/** Starts a backend, or says why it cannot. */
async function start(name: BackendName, acceptSoftware: boolean): Promise<string | undefined> {
  try {
    if (name === 'webgpu') {
      const { startWebgpu } = await import('./webgpu/device.js');
      return await startWebgpu(acceptSoftware);
    }
    if (name === 'wasm') {
      await import('@tensorflow/tfjs-backend-wasm');
      if (!(await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT'))) return 'this engine has no WebAssembly SIMD';
    } else await import('@tensorflow/tfjs-backend-cpu');
    // setBackend answers false and leaves another backend in place where a backend fails
    if (!(await tf.setBackend(name)) || tf.getBackend() !== name) return 'tfjs could not initialise it';
    if (name === 'wasm') await installWasmKernels();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message.split('\n')[0]! : String(error);
  }
}
