import * as tf from '@tensorflow/tfjs-core';
import { Gpu } from './gpu.js';
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

/**
 * Starts tfjs's WebGPU backend on a device that has every feature and limit that kernels use, and installs the kernels.
 * A backend that is running already is kept, unless its device has failed.
 * @returns why it cannot be used; `undefined` where it can
 */
export async function startWebgpu(acceptSoftware: boolean): Promise<string | undefined> {
  const adapter = await adapterOr(acceptSoftware);
  if (typeof adapter === 'string') return adapter;
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
  return undefined;
}

type AdapterInfo = Record<'vendor' | 'architecture' | 'description', string>;

function infoOf(adapter: GPUAdapter): AdapterInfo {
  return (adapter as unknown as { info: AdapterInfo }).info;
}

/** The adapter, or why there is none to use. */
async function adapterOr(acceptSoftware: boolean): Promise<GPUAdapter | string> {
  if (typeof navigator === 'undefined' || !('gpu' in navigator)) return 'this runtime has no navigator.gpu (in Node: npm install webgpu, then import "@tinyfusion/kernels/node")';
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (adapter === null) return 'no GPU adapter was found';
  const { vendor, architecture, description } = infoOf(adapter);
  const label = [vendor, architecture, description].filter((part) => part !== '').join(' ');
  const software = /swiftshader|llvmpipe|lavapipe|software|basic render/i.test(label) || (adapter as { isFallbackAdapter?: boolean }).isFallbackAdapter === true;
  return software && !acceptSoftware ? `the only adapter is a software one (${label})` : adapter;
}
