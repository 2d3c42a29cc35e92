import { BackendError } from '@tinyfusion/core';
import type { Gpu } from './gpu.js';

/** What a bind group was made of. */
export interface BoundGroup {
  layout: GPUBindGroupLayout;
  buffers: readonly GPUBuffer[];
}

/** A buffer as it was between two times that the pool handed it out. */
export interface Value {
  buffer: GPUBuffer;
  bytes: number;
  first: number;
  last: number;
}

/** A dispatch, whoever recorded it. */
export interface TapedDispatch {
  pipeline: GPUComputePipeline;
  layout: GPUBindGroupLayout;
  /** What was bound: values between dispatches, or buffers that keep what they hold. */
  bound: readonly (Value | GPUBuffer)[];
  groups: readonly [number, number, number];
}

/**
 * Notes every dispatch between {@link Tape.start} and {@link Tape.stop}, tfjs's own included, in the place of running it.
 * Buffers that the pool hands out meanwhile are values of the tape, unless data is written to them from outside: those,
 * and what was there before, are bound again as they are.
 */
export class Tape {
  readonly dispatches: TapedDispatch[] = [];
  /** Buffers that must keep their contents, held back from the pool. */
  readonly kept = new Set<GPUBuffer>();
  readonly #values = new Map<GPUBuffer, Value>();
  readonly #groups = new Map<GPUBindGroup, BoundGroup>();
  #restore: (() => void)[] = [];

  constructor(readonly gpu: Gpu) {}

  start(): void {
    const { gpu } = this;
    const { backend, device } = gpu;
    gpu.settleAll();
    gpu.flush();
    const createBindGroup = device.createBindGroup.bind(device);
    const ensure = backend.ensureCommandEncoderReady;
    device.createBindGroup = (descriptor) => {
      const group = createBindGroup(descriptor);
      this.#groups.set(group, { layout: descriptor.layout, buffers: Array.from(descriptor.entries, ({ resource }) => (resource as GPUBufferBinding).buffer) });
      return group;
    };
    backend.ensureCommandEncoderReady = () => {
      if (backend.commandEncoder === null) backend.commandEncoder = this.#encoder(device.createCommandEncoder());
    };
    gpu.tape = this;
    this.#restore = [
      () => {
        // the device's own method again, from its prototype
        delete (device as Partial<GPUDevice>).createBindGroup;
        backend.ensureCommandEncoderReady = ensure;
        gpu.tape = undefined;
      },
    ];
  }

  /** Ends the recording; what was recorded is submitted. */
  stop(): void {
    this.gpu.flush();
    for (const restore of this.#restore.splice(0)) restore();
  }

  /** The pool hands out a buffer. */
  acquired(buffer: GPUBuffer, bytes: number, usage: number): void {
    if ((usage & GPUBufferUsage.UNIFORM) !== 0) this.keep(buffer);
    else if ((usage & GPUBufferUsage.STORAGE) !== 0) this.#values.set(buffer, { buffer, bytes, first: -1, last: -1 });
  }

  /** A buffer has data from outside: it is bound again as it is. */
  keep(buffer: GPUBuffer): void {
    this.#values.delete(buffer);
    this.kept.add(buffer);
    this.gpu.hold(buffer);
  }

  /** The value that a buffer has now. @throws BackendError where it was there before, or came from outside */
  valueOf(buffer: GPUBuffer): Value {
    const value = this.#values.get(buffer);
    if (value === undefined || value.first === -1) throw new BackendError('what was recorded does not depend on its inputs');
    return value;
  }

  #encoder(real: GPUCommandEncoder): GPUCommandEncoder {
    const taped = {
      beginComputePass: () => this.#pass(),
      copyBufferToBuffer: (from: GPUBuffer, fromOffset: number, to: GPUBuffer, toOffset: number, size: number) => {
        // tfjs uploads through a buffer that it maps
        if ((from.usage & GPUBufferUsage.MAP_WRITE) === 0) throw new BackendError('a copy between buffers cannot be recorded');
        real.copyBufferToBuffer(from, fromOffset, to, toOffset, size);
      },
      finish: () => real.finish(),
    };
    return taped as unknown as GPUCommandEncoder;
  }

  #pass(): GPUComputePassEncoder {
    let pipeline: GPUComputePipeline;
    let group: BoundGroup;
    const taped = {
      setPipeline: (next: GPUComputePipeline) => {
        pipeline = next;
      },
      setBindGroup: (_index: number, next: GPUBindGroup) => {
        group = this.#groups.get(next) ?? this.gpu.pipelines.boundBy(next);
      },
      dispatchWorkgroups: (...groups: [number, number, number]) => {
        const at = this.dispatches.length;
        const bound = group.buffers.map((buffer) => {
          const value = this.#values.get(buffer);
          if (value === undefined) return buffer;
          if (value.first === -1) value.first = at;
          value.last = at;
          return value;
        });
        this.dispatches.push({ pipeline, layout: group.layout, bound, groups });
      },
      end: () => {},
    };
    return taped as unknown as GPUComputePassEncoder;
  }
}
