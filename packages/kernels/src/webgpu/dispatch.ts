import { BackendError, type LongTaskOptions, invariant, throwIfCancelled } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { Bindings } from './bindings.js';
import { counters } from './counters.js';
import type { Gpu } from './gpu.js';
import type { BoundGroup } from './tape.js';

/** One dispatch of a compute shader. */
export interface Dispatch {
  /** Shown by `tf.profile`. */
  name: string;
  /** Tells apart shaders of one name; whatever the code depends on beside the bindings and the names of the numbers. */
  variant?: string;
  bindings: Bindings;
  /** Whole numbers, `u.name` in the shader. */
  numbers: Readonly<Record<string, number>>;
  /** Others, `f.name` in the shader. */
  reals?: Readonly<Record<string, number>>;
  /** Threads of a workgroup. */
  workgroup: number;
  groups: readonly [number, number, number];
  /** WGSL that comes before all declarations: extensions to enable. */
  directives?: string | undefined;
  /** Whether `main` sees `subgroup`, `lane` and `lanes` too: which subgroup of the workgroup it is, which thread of it, and how many it has. Enabled by the directives. */
  subgroups?: boolean | undefined;
  /** WGSL; `main` sees `group`, `groups` and `thread`. Called where the shader is not compiled yet. */
  code(): { declarations?: string; main: string };
}

interface Pipeline {
  id: number;
  pipeline: GPUComputePipeline;
  layout: GPUBindGroupLayout;
}

/** Uniform buffers and bind groups kept for another time, before all are let go. */
const [MOST_UNIFORMS, MOST_GROUPS] = [4096, 8192];

/** Compiles shaders once, finds bind groups and uniforms again, and records dispatches into tfjs's command encoder. */
export class Pipelines {
  readonly #gpu: Gpu;
  readonly #pipelines = new Map<string, Pipeline>();
  readonly #uniforms = new Map<string, GPUBuffer>();
  readonly #groups = new Map<string, GPUBindGroup>();
  readonly #bound = new WeakMap<GPUBindGroup, BoundGroup>();
  readonly #ids = new WeakMap<GPUBuffer, number>();
  /** Pipelines under way while nothing runs, see {@link compileAhead}. */
  #ahead: Map<string, Promise<Pipeline>> | undefined;
  #nextId = 0;

  constructor(gpu: Gpu) {
    this.#gpu = gpu;
  }

  /**
   * Records a dispatch.
   * @throws BackendError where the device has reported an error, or has not enough bindings
   */
  run(dispatch: Dispatch): void {
    const { backend, watch, mostBindings } = this.#gpu;
    const { name, bindings, groups, numbers, reals } = dispatch;
    watch.check();
    if (groups.includes(0)) return;
    if (bindings.list.length > mostBindings) throw new BackendError(`${name} binds ${bindings.list.length} buffers, this device ${mostBindings} at most`);
    if (groups.some((n) => n > this.#gpu.device.limits.maxComputeWorkgroupsPerDimension)) throw new BackendError(`${name} needs ${groups.join(' × ')} workgroups, this device has ${this.#gpu.device.limits.maxComputeWorkgroupsPerDimension} a dimension at most; use a smaller batch`);
    if (this.#ahead !== undefined) return this.#compileLater(dispatch, this.#ahead);
    if (this.#uniforms.size + 2 > MOST_UNIFORMS) this.#forget();
    const { id, pipeline, layout } = this.#pipeline(dispatch);
    const uniforms = [this.#uniform('u', Object.values(numbers)), ...(reals === undefined ? [] : [this.#uniform('f', Object.values(reals))])];
    const group = this.#group(id, layout, [...bindings.list.map((b) => b.buffer), ...uniforms]);
    const timed = backend.activeTimers != null;
    if (timed) backend.endComputePassEncoder();
    backend.ensureCommandEncoderReady();
    if (timed && backend.supportTimestampQuery) {
      backend.querySet ??= this.#gpu.device.createQuerySet({ type: 'timestamp', count: backend.querySetCount });
      backend.computePassEncoder = backend.commandEncoder!.beginComputePass({ timestampWrites: { querySet: backend.querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 } });
    }
    const pass = (backend.computePassEncoder ??= backend.commandEncoder!.beginComputePass());
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(...groups);
    counters.dispatches += 1;
    backend.dispatchCountInPass += 1;
    if (timed) {
      backend.endComputePassEncoder();
      backend.activeTimers!.push({ name, query: backend.getQueryTime() });
    } else if (backend.dispatchCountInPass >= tf.env().getNumber('WEBGPU_DEFERRED_SUBMIT_BATCH_SIZE')) {
      backend.endComputePassEncoder();
      backend.submitQueue();
    }
  }

  /**
   * Compiles the shaders of all that `work` would run, side by side and without waiting for any; of ours nothing is run, and
   * tfjs's own kernels run on whatever is there.
   */
  async compileAhead(work: () => void, { signal, onProgress }: LongTaskOptions): Promise<void> {
    invariant(this.#ahead === undefined && this.#gpu.tape === undefined, 'shaders are compiled before they are recorded');
    this.#gpu.settleAll();
    const ahead = (this.#ahead = new Map<string, Promise<Pipeline>>());
    try {
      tf.tidy(work);
    } finally {
      this.#ahead = undefined;
    }
    const total = ahead.size + 1; // what is compiled is then recorded
    let step = 0;
    for (const [key, promised] of ahead) {
      const made = await promised;
      if (!this.#pipelines.has(key)) this.#keep(key, made);
      throwIfCancelled(signal, 'compile');
      onProgress?.({ task: 'compile', step: ++step, total, unit: 'shader' });
    }
  }

  /** What a bind group of {@link run} was made of. */
  boundBy(group: GPUBindGroup): BoundGroup {
    const bound = this.#bound.get(group);
    invariant(bound, 'a bind group that was made here');
    return bound;
  }

  #compileLater(dispatch: Dispatch, ahead: Map<string, Promise<Pipeline>>): void {
    const key = keyOf(dispatch);
    if (this.#pipelines.has(key) || ahead.has(key)) return;
    const { layout, descriptor } = this.#describe(dispatch);
    const promised = this.#gpu.device.createComputePipelineAsync(descriptor).then((pipeline) => ({ id: -1, pipeline, layout }));
    promised.catch(() => {}); // it is awaited in turn
    ahead.set(key, promised);
  }

  #pipeline(dispatch: Dispatch): Pipeline {
    const key = keyOf(dispatch);
    const known = this.#pipelines.get(key);
    if (known !== undefined) return known;
    const { layout, descriptor } = this.#describe(dispatch);
    return this.#keep(key, { id: -1, pipeline: this.#gpu.device.createComputePipeline(descriptor), layout });
  }

  #keep(key: string, { pipeline, layout }: Pipeline): Pipeline {
    const made = { id: this.#pipelines.size, pipeline, layout };
    this.#pipelines.set(key, made);
    counters.pipelines += 1;
    return made;
  }

  #describe({ name, bindings, numbers, reals = {}, workgroup, directives = '', subgroups = false, code }: Dispatch): { layout: GPUBindGroupLayout; descriptor: GPUComputePipelineDescriptor } {
    const { device } = this.#gpu;
    const { declarations = '', main } = code();
    const uniform = (letter: string, type: string, names: readonly string[], at: number): string => (names.length === 0 ? '' : `struct ${letter.toUpperCase()}Numbers { ${names.map((n) => `${n} : ${type}`).join(', ')} }\n@group(0) @binding(${at}) var<uniform> ${letter} : ${letter.toUpperCase()}Numbers;`);
    const count = bindings.list.length;
    const source = `${directives}
${uniform('u', 'u32', Object.keys(numbers), count)}
${uniform('f', 'f32', Object.keys(reals), count + 1)}
${bindings.declarations()}
${declarations}
@compute @workgroup_size(${workgroup})
fn main(@builtin(workgroup_id) group : vec3u, @builtin(num_workgroups) groups : vec3u, @builtin(local_invocation_index) thread : u32${subgroups ? ', @builtin(subgroup_id) subgroup : u32, @builtin(subgroup_invocation_id) lane : u32, @builtin(subgroup_size) lanes : u32' : ''}) {
${main}
}`;
    const entries: GPUBindGroupLayoutEntry[] = bindings.list.map(({ write }, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: write ? 'storage' : 'read-only-storage' } }));
    entries.push({ binding: count, visibility: GPUShaderStage.COMPUTE, buffer: { type: 'uniform' } });
    if (Object.keys(reals).length > 0) entries.push({ binding: count + 1, visibility: GPUShaderStage.COMPUTE, buffer: { type: 'uniform' } });
    const layout = device.createBindGroupLayout({ entries });
    return {
      layout,
      descriptor: {
        label: name,
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: { module: device.createShaderModule({ label: name, code: source }), entryPoint: 'main' },
      },
    };
  }

  /** Buffers of numbers are never written twice, so equal ones are one. */
  #uniform(type: 'u' | 'f', values: readonly number[]): GPUBuffer {
    const key = `${type}${values.join()}`;
    let buffer = this.#uniforms.get(key);
    if (buffer !== undefined) return buffer;
    buffer = this.#gpu.device.createBuffer({ size: 4 * values.length, usage: GPUBufferUsage.UNIFORM, mappedAtCreation: true });
    (type === 'u' ? new Uint32Array(buffer.getMappedRange()) : new Float32Array(buffer.getMappedRange())).set(values);
    buffer.unmap();
    this.#uniforms.set(key, buffer);
    return buffer;
  }

  #group(pipeline: number, layout: GPUBindGroupLayout, buffers: readonly GPUBuffer[]): GPUBindGroup {
    const key = `${pipeline}:${buffers.map((b) => this.#id(b)).join()}`;
    let group = this.#groups.get(key);
    if (group !== undefined) return group;
    if (this.#groups.size >= MOST_GROUPS) this.#groups.clear();
    group = this.#gpu.device.createBindGroup({ layout, entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })) });
    this.#groups.set(key, group);
    this.#bound.set(group, { layout, buffers });
    counters.bindGroups += 1;
    return group;
  }

  #id(buffer: GPUBuffer): number {
    let id = this.#ids.get(buffer);
    if (id === undefined) this.#ids.set(buffer, (id = this.#nextId++));
    return id;
  }

  /** Lets go of all uniforms; those that recordings use live on. */
  #forget(): void {
    this.#uniforms.clear();
    this.#groups.clear();
  }
}

/** Equal for dispatches of one shader. */
function keyOf({ name, variant = '', bindings, numbers, reals = {} }: Dispatch): string {
  return `${name}|${variant}|${bindings.signature}|${Object.keys(numbers).join()}|${Object.keys(reals).join()}`;
}
