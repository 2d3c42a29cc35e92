/**
 * WGSL kernels for tfjs's WebGPU backend.
 * @packageDocumentation
 */
import { BackendError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';
import type { WebGPUBackend } from '@tensorflow/tfjs-backend-webgpu';
import { PACKED_LINEAR, UNPACK_WEIGHT } from './packed-linear.js';

/** A compute shader as tfjs runs it: its prelude declares the inputs by name, `result`, and `uniforms.<input>Shape`. */
interface Program {
  shaderKey: string;
  variableNames: string[];
  outputShape: number[];
  workgroupSize: [number, number, number];
  dispatchLayout: { x: number[]; y?: number[] };
  dispatch: [number, number, number];
  size?: boolean;
  getUserCode(): string;
}

/** Inputs and attributes of one invocation. */
interface Call {
  backend: WebGPUBackend;
  inputs: Record<string, tf.TensorInfo>;
  attributes: Record<string, number>;
}

/** Registers the kernels with tfjs; calling it again does nothing. */
export function installWebgpuKernels(): void {
  for (const [kernelName, kernelFunc] of Object.entries(kernels)) {
    if (tf.getKernel(kernelName, 'webgpu') !== undefined) continue;
    tf.registerKernel({ kernelName, backendName: 'webgpu', kernelFunc: ({ inputs, attrs, backend }) => kernelFunc({ backend: backend as WebGPUBackend, inputs: inputs as Record<string, tf.TensorInfo>, attributes: attrs as Record<string, number> }) });
  }
}

const kernels: Readonly<Record<string, (call: Call) => tf.TensorInfo>> = {
  [PACKED_LINEAR]: (call) => {
    const [rows] = call.inputs['x']!.shape as [number, number];
    const [columns] = call.inputs['words']!.shape as [number, number];
    // few rows, as those of conditions, would leave most of a large tile idle
    const perThread = rows <= 16 ? 1 : 4;
    return run(call, ['x', 'words', 'scale', 'bias'], {
      shaderKey: `tinyfusionPackedLinear_${call.attributes['bits']}_${perThread}_${'bias' in call.inputs}`,
      outputShape: [rows, columns],
      workgroupSize: [16, 16, 1],
      dispatchLayout: { x: [1], y: [0] },
      dispatch: [Math.ceil(columns / 64), Math.ceil(rows / (16 * perThread)), 1],
      getUserCode: () => packedLinear(call.attributes['bits'] as 8 | 16, perThread, 'bias' in call.inputs),
    });
  },
  [UNPACK_WEIGHT]: (call) => {
    const { bits, inFeatures } = call.attributes as { bits: 8 | 16; inFeatures: number };
    const rows = call.inputs['words']!.shape[0]!;
    return run(call, ['words', 'scale'], {
      shaderKey: `tinyfusionUnpackWeight_${bits}`,
      outputShape: [rows, inFeatures],
      workgroupSize: [64, 1, 1],
      dispatchLayout: { x: [0, 1] },
      dispatch: [Math.ceil((rows * inFeatures) / 64), 1, 1],
      size: true,
      getUserCode: () => `
        ${decode(bits)}
        fn main(index : i32) {
          if (index < uniforms.size) {
            let row = index / uniforms.outShape.y;
            let column = index % uniforms.outShape.y;
            let word = words[row * uniforms.wordsShape.y + column / ${32 / bits}];
            result[index] = decode(word, column % ${32 / bits})${bits === 8 ? ' * scale[row]' : ''};
          }
        }`,
    });
  },
};

/** Runs a program over those of `names` that are among the inputs. */
function run({ backend, inputs }: Call, names: readonly string[], program: Omit<Program, 'variableNames'>): tf.TensorInfo {
  const variableNames = names.filter((name) => inputs[name] !== undefined);
  const limit = backend.device.limits.maxStorageBufferBindingSize;
  for (const [name, shape] of [['result', program.outputShape], ...variableNames.map((n) => [n, inputs[n]!.shape] as const)] as const) {
    const bytes = 4 * shape.reduce((a, b) => a * b, 1);
    if (bytes > limit) throw new BackendError(`${name} of shape [${shape.join(', ')}] takes ${(bytes / 2 ** 20).toFixed(0)} MiB, this device binds ${(limit / 2 ** 20).toFixed(0)} MiB at most; use a smaller batch`);
  }
  return backend.runWebGPUProgram({ ...program, variableNames } as never, variableNames.map((name) => inputs[name]!), 'float32');
}

/** `decode(word, part)`: a value out of a word. */
function decode(bits: 8 | 16): string {
  return bits === 16
    ? `fn decode(word : i32, part : i32) -> f32 {
         let pair = unpack2x16float(bitcast<u32>(word));
         return select(pair.x, pair.y, part == 1);
       }`
    : `fn decode(word : i32, part : i32) -> f32 {
         return f32(extractBits(word, u32(part) * 8u, 8u));
       }`;
}

/** x Wᵀ + b in tiles of (16 · perThread) × 64, sixteen of the inner axis at a time; a thread has perThread × 4 results. */
function packedLinear(bits: 8 | 16, perThread: 1 | 4, bias: boolean): string {
  const parts = 32 / bits;
  const rows = 16 * perThread;
  return `
    const ROWS = ${rows};
    var<workgroup> tileX : array<array<f32, ${rows}>, 16>;
    var<workgroup> tileW : array<array<f32, 64>, 16>;
    ${decode(bits)}
    fn main() {
      let count = uniforms.xShape.x;
      let inner = uniforms.xShape.y;
      let outputs = uniforms.wordsShape.x;
      let rowWords = uniforms.wordsShape.y;
      let row0 = i32(workgroupId.y) * ROWS;
      let column0 = i32(workgroupId.x) * 64;
      let thread = i32(localIndex);
      let tx = i32(localId.x);
      let ty = i32(localId.y);
      var sums : array<array<f32, 4>, ${perThread}>;
      for (var k0 = 0; k0 < inner; k0 += 16) {
        for (var i = thread; i < ROWS * 16; i += 256) {
          let row = row0 + i / 16;
          let k = k0 + i % 16;
          var value = 0.0;
          if (row < count && k < inner) { value = x[row * inner + k]; }
          tileX[i % 16][i / 16] = value;
        }
        for (var i = thread; i < 64 * ${16 / parts}; i += 256) {
          let column = column0 + i / ${16 / parts};
          let first = (i % ${16 / parts}) * ${parts};
          let at = k0 / ${parts} + i % ${16 / parts};
          var word = 0;
          var factor = 0.0;
          if (column < outputs && at < rowWords) {
            word = words[column * rowWords + at];
            factor = ${bits === 8 ? 'scale[column]' : '1.0'};
          }
          for (var part = 0; part < ${parts}; part++) {
            tileW[first + part][i / ${16 / parts}] = decode(word, part) * factor;
          }
        }
        workgroupBarrier();
        for (var k = 0; k < 16; k++) {
          for (var r = 0; r < ${perThread}; r++) {
            let value = tileX[k][ty + 16 * r];
            for (var c = 0; c < 4; c++) {
              sums[r][c] += value * tileW[k][tx + 16 * c];
            }
          }
        }
        workgroupBarrier();
      }
      for (var r = 0; r < ${perThread}; r++) {
        for (var c = 0; c < 4; c++) {
          let row = row0 + ty + 16 * r;
          let column = column0 + tx + 16 * c;
          if (row < count && column < outputs) {
            result[row * outputs + column] = sums[r][c]${bias ? ' + bias[column]' : ''};
          }
        }
      }
    }`;
}
