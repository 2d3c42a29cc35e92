/**
 * WebGPU under Node, through Dawn from the optional `webgpu` package.
 * @packageDocumentation
 */
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';

/** Outcome of {@link installWebGPU}. */
export interface WebGPUInstallation {
  installed: boolean;
  /** What was done, or what is missing; a sentence to show. */
  why: string;
}

/**
 * Puts Dawn's `navigator.gpu` in place where Node has none, so that `useBackend()` finds it. Does nothing where the
 * `webgpu` package is not installed or its binary does not load here.
 */
export async function installWebGPU(): Promise<WebGPUInstallation> {
  if (typeof navigator !== 'undefined' && 'gpu' in navigator) return { installed: true, why: 'this runtime has WebGPU' };
  // Dawn would print a warning of its own to the terminal
  if (process.platform === 'linux' && !hasVulkanLoader()) return { installed: false, why: 'there is no Vulkan loader (Debian: apt-get install libvulkan1, and a driver)' };
  // Vulkan drivers complain on the terminal, as errors, where a session has no runtime folder: in containers, over ssh
  if (process.platform === 'linux') process.env['XDG_RUNTIME_DIR'] ??= tmpdir();
  try {
    const { create, globals } = await import('webgpu');
    Object.assign(globalThis, globals);
    // the option shows subgroup matrices, which are experimental
    Object.defineProperty(globalThis, 'navigator', { value: { gpu: create(['enable-dawn-features=allow_unsafe_apis']), userAgent: 'node' }, configurable: true });
    return { installed: true, why: 'Dawn, from the webgpu package' };
  } catch (error) {
    return { installed: false, why: `the webgpu package does not load (${error instanceof Error ? error.message.split('\n')[0] : String(error)}); npm install webgpu` };
  }
}

/** Whether libvulkan.so.1 is where the dynamic linker of common distributions looks. */
function hasVulkanLoader(): boolean {
  const folders = ['/usr/lib', '/usr/lib64', '/usr/local/lib', '/lib/x86_64-linux-gnu', '/usr/lib/x86_64-linux-gnu', '/lib/aarch64-linux-gnu', '/usr/lib/aarch64-linux-gnu', ...(process.env['LD_LIBRARY_PATH'] ?? '').split(':')];
  return folders.some((folder) => folder !== '' && existsSync(`${folder}/libvulkan.so.1`));
}
