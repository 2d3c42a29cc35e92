/** Typed arrays end to end. */
export function concatenate<A extends Float32Array | Uint8Array>(parts: readonly A[]): A extends Float32Array ? Float32Array<ArrayBuffer> : Uint8Array<ArrayBuffer> {
  const length = parts.reduce((sum, p) => sum + p.length, 0);
  const out = parts[0] instanceof Uint8Array ? new Uint8Array(length) : new Float32Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out as ReturnType<typeof concatenate<A>>;
}
