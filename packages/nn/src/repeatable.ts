import { ArgumentError, type Rng, type RngState, restoreRng } from '@tinyfusion/core';

// which stream stands for the one that is asked for: itself, but in the second run of a block
let streamFor = (rng: Rng): Rng => rng;

/**
 * The stream that a block draws its dropout from: `rng`, or where {@link recomputing} runs the block a second time, one
 * that gives what `rng` gave the first time. For a single draw; ask again for the next.
 */
export function repeatable(rng: Rng): Rng {
  return streamFor(rng);
}

/** What `run` makes, and where the streams stood that it drew from, draw by draw. */
export function notingDraws<T>(run: () => T): { value: T; draws: readonly RngState[] } {
  const outer = streamFor;
  const draws: RngState[] = [];
  const noting = (rng: Rng): Rng => {
    const stream = outer(rng);
    draws.push(stream.state());
    return stream;
  };
  return { value: within(noting, run), draws };
}

/** `run` again, with the same draws; the streams themselves do not move on. */
export function repeatingDraws<T>(draws: readonly RngState[], run: () => T): T {
  let at = 0;
  return within(() => {
    const state = draws[at++];
    if (state === undefined) throw new ArgumentError('recomputing: draws of the block', `more than ${draws.length} in its second run`, 'the same in both runs');
    return restoreRng(state);
  }, run);
}

function within<T>(source: typeof streamFor, run: () => T): T {
  const outer = streamFor;
  streamFor = source;
  try {
    return run();
  } finally {
    streamFor = outer;
  }
}
