/** How a storage buffer is seen by a shader. */
export interface BindingOptions {
  /** Whether all indices and row lengths are multiples of four, so that four values are read at once. Default `false`. */
  vec4?: boolean;
  /** Default `'f32'`. */
  type?: 'f32' | 'i32' | 'u32';
}

interface Binding {
  buffer: GPUBuffer;
  type: string;
  write: boolean;
}

/** The storage buffers of a dispatch; a buffer read twice in the same way is bound once. */
export class Bindings {
  readonly list: Binding[] = [];
  /** The index given at each call. */
  readonly #given: number[] = [];

  /** @returns the WGSL name of an array to read */
  read(buffer: GPUBuffer, { vec4 = false, type = 'f32' }: BindingOptions = {}): string {
    const wgsl = vec4 ? `vec4<${type}>` : type;
    const same = this.list.findIndex((b) => b.buffer === buffer && b.type === wgsl && !b.write);
    return this.#give(same >= 0 ? same : this.list.push({ buffer, type: wgsl, write: false }) - 1);
  }

  /** @returns the WGSL name of an array to write, or to read and write */
  write(buffer: GPUBuffer, { vec4 = false, type = 'f32' }: BindingOptions = {}): string {
    return this.#give(this.list.push({ buffer, type: vec4 ? `vec4<${type}>` : type, write: true }) - 1);
  }

  #give(index: number): string {
    this.#given.push(index);
    return `b${index}`;
  }

  /** Equal where the declarations are, and the names that were given out. */
  get signature(): string {
    return `${this.list.map((b) => `${b.write ? 'w' : 'r'}${b.type}`).join()};${this.#given.join()}`;
  }

  /**
   * The WGSL of all arrays, and for those of floats `get_b0(i, left)`, four values from index i of which `left` exist, and
   * `put_b0(i, left, v)`.
   */
  declarations(): string {
    return this.list
      .map(({ type, write }, i) => {
        const name = `b${i}`;
        const lines = [`@group(0) @binding(${i}) var<storage, ${write ? 'read_write' : 'read'}> ${name} : array<${type}>;`];
        if (type === 'vec4<f32>') lines.push(write ? `fn put_${name}(i : u32, left : u32, v : vec4f) { ${name}[i / 4u] = v; }` : `fn get_${name}(i : u32, left : u32) -> vec4f { return ${name}[i / 4u]; }`);
        if (type === 'f32' && write) lines.push(`fn put_${name}(i : u32, left : u32, v : vec4f) { ${name}[i] = v.x; if (left > 1u) { ${name}[i + 1u] = v.y; } if (left > 2u) { ${name}[i + 2u] = v.z; } if (left > 3u) { ${name}[i + 3u] = v.w; } }`);
        if (type === 'f32' && !write) lines.push(`fn get_${name}(i : u32, left : u32) -> vec4f { var v = vec4f(${name}[i], 0.0, 0.0, 0.0); if (left > 1u) { v.y = ${name}[i + 1u]; } if (left > 2u) { v.z = ${name}[i + 2u]; } if (left > 3u) { v.w = ${name}[i + 3u]; } return v; }`);
        return lines.join('\n');
      })
      .join('\n');
  }
}
