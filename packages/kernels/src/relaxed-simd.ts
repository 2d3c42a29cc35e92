/** A module whose one function is `f32x4.relaxed_madd`. */
const probe = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 8, 1, 96, 3, 123, 123, 123, 1, 123, 3, 2, 1, 0, 10, 13, 1, 11, 0, 32, 0, 32, 1, 32, 2, 253, 133, 2, 11);

interface NodeProcess {
  getBuiltinModule?(name: 'node:v8'): { setFlagsFromString(flags: string): void };
}

/**
 * Whether the engine has WebAssembly's relaxed SIMD, as Chrome has since 114 and Node since 22. Node 20 has it behind
 * a flag, which this turns on.
 */
export function hasRelaxedSimd(): boolean {
  if (WebAssembly.validate(probe)) return true;
  const node = (globalThis as { process?: NodeProcess }).process;
  node?.getBuiltinModule?.('node:v8').setFlagsFromString('--experimental-wasm-relaxed-simd');
  return WebAssembly.validate(probe);
}
