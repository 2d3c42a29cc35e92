import type { BlockHook } from '@tinyfusion/nn';

/** Runs a model as if only `kept` blocks were there; the others are not computed. No surgery. */
export function maskHook(kept: readonly number[]): BlockHook {
  const stay = new Set(kept);
  return (site, x, run) => (stay.has(site.index) ? run(x) : x);
}
