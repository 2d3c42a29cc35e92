/**
 * WebGPU under Node, through Dawn from the optional `webgpu` package.
 * @packageDocumentation
 */

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
  try {
    const { create, globals } = await import('webgpu');
    Object.assign(globalThis, globals);
    Object.defineProperty(globalThis, 'navigator', { value: { gpu: create([]), userAgent: 'node' }, configurable: true });
    return { installed: true, why: 'Dawn, from the webgpu package' };
  } catch (error) {
    return { installed: false, why: `the webgpu package does not load (${error instanceof Error ? error.message.split('\n')[0] : String(error)}); npm install webgpu` };
  }
}
