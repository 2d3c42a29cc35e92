import * as tf from '@tensorflow/tfjs-core';
import { Gpu } from './gpu.js';
import type { ProductChoice } from './product-forms.js';
import { installWebgpuKernels } from './register.js';

/** Asked for where the adapter has them. */
const FEATURES = ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix', 'timestamp-query', 'bgra8unorm-storage'] as const;

/** Asked for as high as the adapter goes. */
const LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupsPerDimension',
] as const;

/** How products are computed: `'measured'` tries what the device can do and takes the fastest, `'portable'` does not, `'auto'` tries on hardware. */
export type ProductsOption = 'auto' | 'measured' | 'portable';

/**
 * Starts tfjs's WebGPU backend on a device that has every feature and limit that kernels use, and installs the kernels.
 * A backend that is running already is kept, unless its device has failed.
 * @returns how products are computed, empty where nothing was tried; or why it cannot be used
 */
export async function startWebgpu(acceptSoftware: boolean, products: ProductsOption): Promise<readonly ProductChoice[] | string> {
  const adapter = typeof navigator === 'undefined' || !('gpu' in navigator) ? undefined : await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (adapter === undefined) return 'this runtime has no navigator.gpu (in Node: npm install webgpu, then import "@tinyfusion/kernels/node")';
  if (adapter === null) return 'no GPU adapter was found';
  const software = softwareLabel(adapter);
  if (software !== undefined && !acceptSoftware) return `the only adapter is a software one (${software})`;
  const { WebGPUBackend } = await import('@tensorflow/tfjs-backend-webgpu');
  const { registry } = tf.engine() as unknown as { registry: Record<string, object | undefined> };
  const running = registry['webgpu'];
  if (running === undefined || Gpu.of(running).watch.failed) {
    const requiredFeatures = FEATURES.filter((feature) => adapter.features.has(feature as GPUFeatureName)) as GPUFeatureName[];
    const requiredLimits = Object.fromEntries(LIMITS.map((limit) => [limit, adapter.limits[limit]]));
    const device = await adapter.requestDevice({ requiredFeatures, requiredLimits });
    if (tf.engine().findBackendFactory('webgpu') !== null) tf.removeBackend('webgpu');
    tf.registerBackend('webgpu', () => new WebGPUBackend(device, infoOf(adapter) as never), 3);
  }
  // setBackend answers false and leaves another backend in place where a backend fails
  if (!(await tf.setBackend('webgpu')) || tf.getBackend() !== 'webgpu') return 'tfjs could not initialise it';
  installWebgpuKernels(tf.backend());
  const gpu = Gpu.of(tf.backend());
  if (gpu.products.choices === undefined && (products === 'measured' || (products === 'auto' && software === undefined))) {
    try {
      const { chooseForms } = await import('./choose-forms.js');
      await chooseForms(gpu);
    } catch {
      // a form has cost us the device: another, and without; or there was no memory to try them
      await gpu.watch.settled();
      if (gpu.watch.failed) return startWebgpu(acceptSoftware, 'portable');
      gpu.products.choices = [];
    }
  }
  if (products === 'portable') gpu.products.choices = undefined;
  return gpu.products.choices ?? [];
}

type AdapterInfo = Record<'vendor' | 'architecture' | 'device' | 'description', string>;

function infoOf(adapter: GPUAdapter): AdapterInfo {
  return (adapter as unknown as { info: AdapterInfo }).info;
}

/** What a software adapter calls itself, or one that computes nothing; `undefined` for hardware. */
function softwareLabel(adapter: GPUAdapter): string | undefined {
  const { vendor, architecture, description, device } = infoOf(adapter);
  const label = [vendor, architecture, description].filter((part) => part !== '').join(' ');
  const software = /swiftshader|llvmpipe|lavapipe|software|basic render|null-backend/i.test(`${label} ${device}`) || (adapter as { isFallbackAdapter?: boolean }).isFallbackAdapter === true;
  return software ? label || device : undefined;
}
