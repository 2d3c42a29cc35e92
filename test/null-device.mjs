import { create, globals } from 'webgpu';

/** Bytes that a buffer has in truth. */
const MOST = 65_536;

/**
 * Dawn on a device that validates shaders and calls, computes nothing, and holds next to nothing of what is allocated: what
 * models of any size dispatch, allocate and submit can be counted. What is read back is zeros.
 */
export function installNullDevice() {
  Object.assign(globalThis, globals);
  const gpu = create(['backend=null']);
  const device = GPUDevice.prototype;
  const encoder = GPUCommandEncoder.prototype;
  const { createBuffer, createBindGroup } = device;
  const { copyBufferToBuffer } = encoder;
  device.createBuffer = function (descriptor) {
    const { size } = descriptor;
    const buffer = createBuffer.call(this, { ...descriptor, size: Math.min(size, MOST), mappedAtCreation: false });
    Object.defineProperties(buffer, { size: { value: size }, mapAsync: { value: async () => {} }, getMappedRange: { value: () => new ArrayBuffer(size) } });
    return buffer;
  };
  device.createBindGroup = function ({ layout, entries }) {
    return createBindGroup.call(this, { layout, entries: entries.map(({ binding, resource }) => ({ binding, resource: { buffer: resource.buffer } })) });
  };
  encoder.copyBufferToBuffer = function (from, _at, to, _to, size) {
    copyBufferToBuffer.call(this, from, 0, to, 0, Math.min(size, MOST));
  };
  Object.defineProperty(globalThis, 'navigator', { value: { gpu, userAgent: 'node' }, configurable: true });
}
