// Mutated files of every format: each ends in data or in a CheckpointError, in time, and takes no more memory than it can justify.
//   TINYFUSION_MUTANTS=100000 npx vitest run --project node packages/weights/test/mutation.test.ts
import { CheckpointError, createRng } from '@tinyfusion/core';
import { describe, expect, it } from 'vitest';
import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Source, type StateDict, readCheckpoint, readShardedSafetensors, tensorParts, weightsOf, writableTensor, writeNpy, writeNpz, writeSafetensors, writeTorch } from '../src/index.js';

const mutants = Number(process.env['TINYFUSION_MUTANTS'] ?? 4000);
const rng = createRng(1);
const tensor = (shape: number[]) => writableTensor(rng.normal(shape.reduce((a, b) => a * b, 1)), shape);
const tensors = [['a.weight', tensor([3, 4])], ['a.bias', tensor([3])], ['__proto__', tensor([2])], ['b', tensor([2, 3, 2])]] as const;
const golden = fileURLToPath(new URL('../../../fixtures/golden/files/', import.meta.url));

/** Bytes that can be read within their bounds alone. */
function guarded(bytes: Uint8Array): Source {
  return {
    name: 'mutant',
    size: bytes.length,
    read: async (offset, length) => {
      if (!Number.isInteger(offset) || !Number.isInteger(length) || offset < 0 || length < 0 || offset + length > bytes.length) throw new Error(`read of ${length} at ${offset} of ${bytes.length} bytes`);
      return bytes.slice(offset, offset + length);
    },
  };
}

interface Seed {
  name: string;
  bytes: Uint8Array;
  read: (bytes: Uint8Array) => Promise<StateDict>;
}

const plain = (name: string, bytes: Uint8Array): Seed => ({ name, bytes, read: (mutant) => readCheckpoint(guarded(mutant)) });
const index = new TextEncoder().encode(JSON.stringify({ metadata: { total_size: 92 }, weight_map: { 'a.weight': 'one.safetensors', b: 'two.safetensors' } }));

const seeds: Seed[] = [
  plain('safetensors', writeSafetensors(tensors, [['note', 'some text']])),
  { name: 'sharded index', bytes: index, read: (mutant) => readShardedSafetensors(new TextDecoder().decode(mutant), 'index.json', async () => guarded(writeSafetensors([tensors[0], tensors[3]]))) },
  plain('torch zip', await writeTorch(tensors)),
  plain('npz', await writeNpz(tensors)),
  plain('npz, deflated', await writeNpz(tensors, { compress: true })),
  plain('npy', writeNpy(tensor([4, 5]))),
  ...readdirSync(golden).filter((name) => /\.(pt|pth|npz|npy|safetensors)$/.test(name)).map((name) => plain(name, new Uint8Array(readFileSync(golden + name)))).filter(({ bytes }) => bytes.length < 200_000),
];

const interesting = [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff];

/** One to four changes: bits, bytes, lengths, cuts, copies, parts of another file. */
function mutate(bytes: Uint8Array, draw: () => number): Uint8Array {
  let out = bytes.slice();
  const below = (n: number): number => Math.floor(draw() * n);
  for (let change = 1 + below(4); change > 0 && out.length > 0; change--) {
    const at = below(out.length);
    const view = new DataView(out.buffer);
    const kind = below(8);
    if (kind === 0) out[at]! ^= 1 << below(8);
    else if (kind === 1) out[at] = below(256);
    else if (kind === 2) out.fill(interesting[below(5)]!, at, at + below(16));
    else if (kind === 3 && at + 4 <= out.length) view.setUint32(at, interesting[below(interesting.length)]!, true);
    else if (kind === 4 && at + 8 <= out.length) view.setBigUint64(at, BigInt(interesting[below(interesting.length)]!) << BigInt(below(3) * 16), true);
    else if (kind === 5) out = out.slice(0, at);
    else if (kind === 6) {
      const length = below(Math.min(64, out.length - at));
      out = new Uint8Array([...out.subarray(0, at), ...out.subarray(at, at + length), ...out.subarray(at)]);
    } else {
      const other = seeds[below(seeds.length)]!.bytes;
      const from = below(other.length);
      out.set(other.subarray(from, from + Math.min(below(64), out.length - at)), at);
    }
  }
  return out;
}

describe('mutated files', () => {
  const each = Math.ceil(mutants / seeds.length);
  it.each(seeds.map((seed) => [seed.name, seed] as const))(
    'of %s end in data or in a CheckpointError',
    async (_name, { bytes, read }) => {
      const own = createRng(7).split(_name);
      let pool = own.uniform(4096);
      let used = 0;
      const draw = (): number => {
        if (used === pool.length) [pool, used] = [own.uniform(4096), 0];
        return pool[used++]!;
      };
      let whole = 0;
      let slowest = 0;
      for (let i = 0; i < each; i++) {
        const mutant = mutate(bytes, draw);
        // of this process alone: a busy machine makes nothing a hang, and what waits for ever ends at the test's own limit
        const started = process.cpuUsage();
        try {
          const state = await read(mutant);
          for (const part of new Set([state, weightsOf(state)])) {
            for (const [name, record] of part.tensors) {
              // deflate packs 1032 to 1 at most
              const size = record.shape.reduce((a, b) => a * b, 1);
              if (size > 1100 * (mutant.length + 1024)) throw new Error(`${name} of ${size} values from ${mutant.length} bytes`);
              const values = await record.read();
              // in parts it is the same, or damaged too
              let length = 0;
              for await (const piece of tensorParts(record)) length += piece.length;
              if (length !== values.length) throw new Error(`${name} has ${values.length} bytes at once and ${length} in parts`);
              if (values.length > 1100 * (mutant.length + 1024)) throw new Error(`${name} of ${values.length} bytes from ${mutant.length}`);
            }
          }
          whole++;
        } catch (error) {
          if (!CheckpointError.isInstance(error) || (error as { code?: string }).code !== 'CHECKPOINT') throw new Error(`mutant ${i} of ${_name} (${Buffer.from(mutant).toString('base64').slice(0, 2000)}): ${error instanceof Error ? error.stack : String(error)}`, { cause: error });
        }
        const { user, system } = process.cpuUsage(started);
        slowest = Math.max(slowest, (user + system) / 1000);
      }
      expect(slowest).toBeLessThan(2000);
      expect(whole).toBeLessThan(each);
      expect(({} as Record<string, unknown>)['polluted']).toBe(undefined);
    },
    600_000,
  );
});
