import { ArgumentError, BackendError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import { installWasmKernels } from './wasm.js';
import type { ProductsOption } from './webgpu/device.js';

/** Backends that {@link useBackend} can start. */
export type BackendName = 'webgpu' | 'wasm' | 'cpu';

/** What was chosen. */
export interface BackendChoice {
  name: BackendName;
  /** Why this one, and what spoke against those before it; a sentence to show. */
  why: string;
  /** On WebGPU: how products of matrices are computed here. Empty where nothing was tried, and the portable form is used. */
  products?: readonly ProductWay[];
}

/** How products of matrices of a kind are computed on a device; to be named in a bug report. */
export interface ProductWay {
  /** `'few rows'`, at most 16; `'small'` or `'large'`, with `', float16 weights'` where they are held so. */
  products: string;
  /** The form that was chosen. */
  form: string;
  /** For each form that was tried the time it took, or why it is not used. */
  tried: Readonly<Record<string, string>>;
}

/** Options of {@link useBackend}. */
export interface UseBackendOptions {
  /** The backend to start, or `'auto'`: WebGPU on a hardware adapter, else WASM with SIMD, else plain JavaScript. Default `'auto'`. */
  prefer?: BackendName | 'auto';
  /**
   * On WebGPU: `'measured'` tries every form of matrix product that the device's features allow, for at most two seconds
   * or so, and uses the fastest that is right; `'portable'` uses none but what every device can run; `'auto'` measures on
   * hardware. Default: the environment's `TINYFUSION_PRODUCTS`, else `'auto'`.
   */
  products?: 'auto' | 'measured' | 'portable';
}

const names: readonly BackendName[] = ['webgpu', 'wasm', 'cpu'];
const ways: readonly ProductsOption[] = ['auto', 'measured', 'portable'];

type Started = Pick<BackendChoice, 'products'>;

function fromEnvironment(): ProductsOption | undefined {
  return typeof process === 'undefined' ? undefined : ((process.env?.['TINYFUSION_PRODUCTS'] || undefined) as ProductsOption | undefined);
}

/**
 * Starts a tfjs backend with this package's kernels and makes it the current one. A software WebGPU adapter is used
 * only where it is asked for by name. In Node WebGPU needs `@tinyfusion/kernels/node`.
 *
 * @throws BackendError where the backend asked for cannot start
 */
export async function useBackend({ prefer = 'auto', products = fromEnvironment() ?? 'auto' }: UseBackendOptions = {}): Promise<BackendChoice> {
  if (prefer !== 'auto' && !names.includes(prefer)) throw new ArgumentError('UseBackendOptions.prefer', prefer, `'auto' or one of ${names.join(', ')}`);
  if (!ways.includes(products)) throw new ArgumentError('UseBackendOptions.products', products, `one of ${ways.join(', ')}`);
  if (prefer !== 'auto') {
    const outcome = await start(prefer, true, products);
    if (typeof outcome === 'string') throw new BackendError(`the ${prefer} backend cannot start: ${outcome}. Leave the choice to "auto", or name one of ${names.filter((n) => n !== prefer).join(', ')}.`);
    return { name: prefer, why: `asked for${summaryOf(outcome)}`, ...outcome };
  }
  const refused: string[] = [];
  for (const name of names) {
    const outcome = await start(name, false, products);
    if (typeof outcome !== 'string') return { name, why: `${refused.length === 0 ? 'a GPU is here' : refused.join('; ')}${summaryOf(outcome)}`, ...outcome };
    refused.push(`no ${name}: ${outcome}`);
  }
  throw new BackendError(`no backend can start: ${refused.join('; ')}`);
}

function summaryOf({ products = [] }: Started): string {
  return products.length === 0 ? '' : `; fastest for matrix products: ${products.map((way) => `${way.products} ${way.form}`).join(', ')}`;
}

/** Starts a backend, or says why it cannot. */
async function start(name: BackendName, acceptSoftware: boolean, products: ProductsOption): Promise<Started | string> {
  try {
    if (name === 'webgpu') {
      const { startWebgpu } = await import('./webgpu/device.js');
      const choices = await startWebgpu(acceptSoftware, products);
      return typeof choices === 'string' ? choices : { products: choices.map(({ form, ...choice }) => ({ ...choice, form: form.name })) };
    }
    if (name === 'wasm') {
      await import('@tensorflow/tfjs-backend-wasm');
      if (!(await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT'))) return 'this engine has no WebAssembly SIMD';
    } else await import('@tensorflow/tfjs-backend-cpu');
    // setBackend answers false and leaves another backend in place where a backend fails
    if (!(await tf.setBackend(name)) || tf.getBackend() !== name) return 'tfjs could not initialise it';
    if (name === 'wasm') await installWasmKernels();
    return {};
  } catch (error) {
    return error instanceof Error ? error.message.split('\n')[0]! : String(error);
  }
}
