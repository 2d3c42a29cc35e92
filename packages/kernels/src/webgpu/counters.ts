/** What the WebGPU backend has done since it started, or since {@link resetWebgpuCounters}. */
export interface WebgpuCounters {
  /** Dispatches of this package's kernels. */
  dispatches: number;
  /** Dispatches of tfjs's own kernels. */
  stockDispatches: number;
  /** Command buffers submitted. */
  submits: number;
  /** Pipelines compiled for this package's kernels. */
  pipelines: number;
  /** Bind groups made for them; those that are found again are not counted. */
  bindGroups: number;
  /** Bytes of new buffers; those that come out of the pool are not counted. */
  bytesAllocated: number;
  /** Most bytes in buffers at the same time, the pool's free ones aside. */
  peakBytes: number;
}

const zeros = (): WebgpuCounters => ({ dispatches: 0, stockDispatches: 0, submits: 0, pipelines: 0, bindGroups: 0, bytesAllocated: 0, peakBytes: 0 });

/** The live counters. @internal */
export const counters: WebgpuCounters = zeros();

/** A copy of the counters of the WebGPU backend that `useBackend` started; zeros where it started none. */
export function webgpuCounters(): WebgpuCounters {
  return { ...counters };
}

/** Sets all counters to zero. */
export function resetWebgpuCounters(): void {
  Object.assign(counters, zeros());
}
