/** A value between dispatches: its bytes, and the first and last dispatch that touch it. */
export interface Span {
  bytes: number;
  first: number;
  last: number;
}

/** Which buffer holds each value, and how large the buffers are. */
export interface BufferPlan {
  /** Index into {@link BufferPlan.sizes} for each span. */
  places: number[];
  sizes: number[];
}

/**
 * Puts values into as few bytes as a greedy choice finds: from the largest down, each goes into the smallest buffer whose
 * values live at other times, or into one of its own. Values of one dispatch never share a buffer, as WebGPU forbids one
 * buffer to be read and written at once, wherever in it. (Pisarchyk & Lee 2020, "greedy by size for shared objects".)
 */
export function planBuffers(spans: readonly Span[]): BufferPlan {
  const sizes: number[] = [];
  const held: Span[][] = [];
  const places = spans.map(() => -1);
  const order = spans.map((_, i) => i).sort((a, b) => spans[b]!.bytes - spans[a]!.bytes || spans[a]!.first - spans[b]!.first);
  for (const i of order) {
    const span = spans[i]!;
    let best = -1;
    for (const [at, others] of held.entries()) {
      if ((best === -1 || sizes[at]! < sizes[best]!) && others.every((other) => other.last < span.first || span.last < other.first)) best = at;
    }
    if (best === -1) {
      best = sizes.push(span.bytes) - 1;
      held.push([]);
    }
    held[best]!.push(span);
    places[i] = best;
  }
  return { places, sizes };
}
