import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo } from 'node:net';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CheckpointError, createRng } from '@tinyfusion/core';
import { afterEach, describe, expect, it } from 'vitest';
import { checkWritable, loadCheckpoint, loadSafetensors, makeFolder, nodeCache, openCheckpoint, writeCheckpoint, writeFileAtomic } from '../src/node.js';
import { readCheckpoint, stateDictHash, stateDictOf, toFloat32, urlSource, weightsOf, withDtype, writableTensor, writeSafetensors } from '../src/index.js';

const folder = mkdtempSync(join(tmpdir(), 'weights-'));
const at = (name: string): string => join(folder, name);
const rng = createRng(0);
const state = stateDictOf([
  ['a.weight', { shape: [4, 5], values: rng.normal(20) }],
  ['b', { shape: [], values: rng.normal(1) }],
  ['c', { shape: [3], values: rng.normal(3) }],
]);

it('takes `model.` for a training run’s only where it is one', () => {
  const namesOf = (...names: string[]): string[] => [...weightsOf(stateDictOf(names.map((name) => [name, { shape: [1], values: Float32Array.of(1) }] as const))).tensors.keys()];
  expect(namesOf('model.blocks.0.w', 'opt.state.0')).toEqual(['blocks.0.w']);
  for (const own of [['model.diffusion_model.joint_blocks.0.w', 'first_stage_model.w'], ['model.embed_tokens.weight', 'model.layers.0.w', 'lm_head.weight']]) expect(namesOf(...own)).toEqual(own);
});

describe('writeCheckpoint', () => {
  it('copies what is larger than its room from file to file, with metadata that are known in the end', async () => {
    const large = stateDictOf([['large', { shape: [1500, 1001], values: rng.normal(1500 * 1001) }], ...[...'ab'].map((name) => [name, { shape: [3], values: rng.normal(3) }] as const)]);
    await writeCheckpoint(at('large.safetensors'), large);
    await using opened = await openCheckpoint(at('large.safetensors'));
    const hash = stateDictHash(opened);
    const text = (value: string): [string, string][] => [['hash', value]];
    for (const name of ['copy.safetensors', 'copy.pt']) {
      await writeCheckpoint(at(name), opened, { metadata: text('0'.repeat(64)), finalMetadata: hash.then(text) });
      const copy = await loadCheckpoint(at(name));
      expect(copy.metadata.get('hash')).toBe(await stateDictHash(large));
      expect(await stateDictHash(copy)).toBe(await hash);
    }
    await expect(writeCheckpoint(at('copy.safetensors'), large, { metadata: text(''), finalMetadata: Promise.resolve(text('much longer')) })).rejects.toThrow(/header of \d+ bytes, expected \d+/);
    await expect(writeCheckpoint(at('copy.safetensors'), large, { finalMetadata: Promise.reject(new CheckpointError('no hash')) })).rejects.toThrow('no hash');
    // what fails first is said, and the other failure is not left unhandled
    await expect(writeCheckpoint(at('copy.bin'), large, { finalMetadata: Promise.reject(new CheckpointError('no hash')) })).rejects.toThrow(/names no format/);
    expect(await stateDictHash(await loadCheckpoint(at('copy.safetensors')))).toBe(await hash);
  });

  it.each(['x.safetensors', 'x.pt', 'x.npz'])('%s comes back to the bit, in another type rounded, and leaves nothing beside it', async (name) => {
    const steps: number[] = [];
    await writeCheckpoint(at(name), state, { onProgress: ({ step }) => steps.push(step) });
    expect(steps).toEqual([1, 2, 3]);
    steps.length = 0;
    await writeCheckpoint(at(`empty-${name}`), stateDictOf([]), { onProgress: ({ step, total }) => steps.push(step, total!) });
    expect(steps).toEqual([0, 0]);
    {
      await using back = await openCheckpoint(at(name));
      expect(await stateDictHash(back)).toBe(await stateDictHash(state));
      await writeCheckpoint(at(`half-${name}`), withDtype(back, 'F16'));
    }
    const whole = await (name.endsWith('.safetensors') ? loadSafetensors : loadCheckpoint)(at(name)); // the file is closed
    expect(await stateDictHash(whole)).toBe(await stateDictHash(state));
    await using half = await openCheckpoint(at(`half-${name}`));
    expect(half.tensors.get('c')!.dtype).toBe('F16');
    const [got, wanted] = [await toFloat32(half.tensors.get('c')!), await toFloat32(state.tensors.get('c')!)];
    for (const [i, v] of got.entries()) expect(Math.abs(v - wanted[i]!)).toBeLessThan(1e-3 * Math.abs(wanted[i]!));
    expect(readdirSync(folder).filter((file) => file.endsWith('.part'))).toEqual([]);
  });

  it.each(['order.safetensors', 'order.pt', 'order.npz'])('%s tells of a tensor when it has been read, and of the last when the file has its name', async (name) => {
    const log: string[] = [];
    const told = [...state.tensors].map(([key, record]) => [key, { ...record, read: async () => (log.push(key), record.read()) }] as const);
    await writeCheckpoint(at(name), { tensors: new Map(told), metadata: new Map() }, { onProgress: ({ step, total }) => log.push(`${step}/${total}${existsSync(at(name)) ? ' there' : ''}`) });
    expect(log).toEqual(['a.weight', '1/3', 'b', '2/3', 'c', '3/3 there']);
  });

  it.each(['short.safetensors', 'short.pt', 'short.npz'])('%s stays as it was where a tensor gives fewer bytes than it has, or more', async (name) => {
    writeFileSync(at(name), 'old');
    for (const count of [4, 12]) {
      const bytes = new Uint8Array(count);
      const streamed = { dtype: 'F32', shape: [2], read: () => Promise.reject(new Error('not asked')), stream: () => new Blob([bytes]).stream() as ReadableStream<Uint8Array> } as const;
      for (const record of [{ dtype: 'F32', shape: [2], read: async () => bytes } as const, streamed]) {
        const steps: number[] = [];
        const error = await writeCheckpoint(at(name), { tensors: new Map([...state.tensors, ['w', record]]), metadata: new Map() }, { onProgress: ({ step }) => steps.push(step) }).catch((e: unknown) => e);
        expect(error).toBeInstanceOf(CheckpointError);
        expect((error as Error).message).toBe(`tensor "w" of type F32 and shape [2] needs 8 bytes, got ${count}`);
        expect(readFileSync(at(name), 'utf8')).toBe('old');
        expect(steps).toEqual([1, 2, 3]);
      }
    }
    expect(readdirSync(folder).filter((file) => file.endsWith('.part'))).toEqual([]);
  });

  it('leaves the old file where a tensor cannot be read, the run is cancelled, or the ending is unknown', async () => {
    writeFileSync(at('old.pt'), 'old');
    const broken = { ...state, tensors: new Map([...state.tensors, ['d', { dtype: 'F32', shape: [1], read: () => Promise.reject(new CheckpointError('gone')) } as const]]) };
    await expect(writeCheckpoint(at('old.pt'), broken)).rejects.toThrow('gone');
    await expect(writeCheckpoint(at('old.pt'), state, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'CANCELLED' });
    await expect(writeCheckpoint(at('old.bin'), state)).rejects.toThrow(/names no format; expected it to end in/);
    expect(readFileSync(at('old.pt'), 'utf8')).toBe('old');
    expect(readdirSync(folder).filter((file) => file.endsWith('.part'))).toEqual([]);
  });
});

describe('what is no place for a file', () => {
  it('is said before and when it is written to, and nothing is left', async () => {
    writeFileSync(at('file'), '');
    mkdirSync(at('folder.pt'));
    for (const path of [at('file/x.pt'), at('file/a/b/x.pt')]) {
      await expect(checkWritable(path)).rejects.toThrow(/cannot be made: a part of the path is a file/);
      await expect(writeCheckpoint(path, state)).rejects.toThrow(CheckpointError);
    }
    await expect(checkWritable(at('folder.pt'))).rejects.toThrow(/folder\.pt cannot be written: it is a folder/);
    await expect(writeCheckpoint(at('folder.pt'), state)).rejects.toThrow(/it is a folder/);
    await checkWritable(at('new/er/x.pt'));
    expect(readdirSync(folder)).not.toContain('new');
    await Promise.all([1, 2, 3].map((i) => writeFileAtomic(at(`at/once/${i}`), '')));
    expect(readdirSync(at('at/once')).toSorted()).toEqual(['1', '2', '3']);
  });

  it.skipIf(process.platform !== 'linux')('where folders cannot be made it ends, and a pipe is not waited for', async () => {
    await expect(makeFolder('/proc/a/b')).rejects.toThrow(/cannot be made: nothing can be made in that place/);
    await expect(nodeCache('/proc/a/b').exclusively('x', async () => {})).rejects.toThrow(CheckpointError);
    await expect(checkWritable('/proc/a/b/x.pt')).rejects.toThrow(/the folder \/proc\/a\/b cannot be made: nothing can be made/);
    await expect(checkWritable('/proc/x.pt')).rejects.toThrow(/\/proc\/x\.pt cannot be written: nothing can be made/);
    execFileSync('mkfifo', [at('pipe')]);
    await expect(openCheckpoint(at('pipe'))).rejects.toThrow(/pipe cannot be read: it is no file/);
    await expect(openCheckpoint(folder)).rejects.toThrow(/cannot be read: it is a folder/);
    await expect(openCheckpoint('/proc/self/mem')).rejects.toThrow(CheckpointError);
  });

  it.skipIf(process.platform !== 'linux')('a full disk leaves the old file, and nothing else', async () => {
    const full = at('full');
    mkdirSync(full);
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', full], { stdio: 'ignore' });
    } catch {
      console.log('skipped: a full disk; mount is not allowed here');
      return;
    }
    try {
      const large = stateDictOf([['x', { shape: [100_000], values: new Float32Array(100_000) }]]);
      for (const name of ['x.pt', 'x.safetensors', 'x.npz']) {
        writeFileSync(join(full, name), 'old');
        await expect(writeCheckpoint(join(full, name), large)).rejects.toThrow(/cannot be written: the disk is full/);
        expect(readFileSync(join(full, name), 'utf8')).toBe('old');
      }
      expect(readdirSync(full).toSorted()).toEqual(['x.npz', 'x.pt', 'x.safetensors']);
    } finally {
      execFileSync('umount', [full]);
    }
  });
});

describe('a sharded checkpoint', () => {
  it('is opened by its index, and refused where the index lies', async () => {
    const values = rng.normal(4);
    writeFileSync(at('m-1.safetensors'), writeSafetensors([['ema.x', writableTensor(values, [4])]]));
    writeFileSync(at('m-2.safetensors'), writeSafetensors([['ema.y', writableTensor(values, [2, 2])]]));
    const index = (map: object): void => writeFileSync(at('m.safetensors.index.json'), JSON.stringify({ weight_map: map }));
    index({ 'ema.x': 'm-1.safetensors', 'ema.y': 'm-2.safetensors' });
    {
      await using both = await openCheckpoint(at('m.safetensors.index.json'));
      expect([...weightsOf(both).tensors.keys()]).toEqual(['x', 'y']);
      expect(await toFloat32(both.tensors.get('ema.y')!)).toEqual(values);
    }
    index({ 'ema.z': 'm-1.safetensors' });
    await expect(openCheckpoint(at('m.safetensors.index.json'))).rejects.toThrow(/"ema\.z" is in m-1\.safetensors, where it is not/);
    index({ x: '../secret.safetensors' });
    await expect(openCheckpoint(at('m.safetensors.index.json'))).rejects.toThrow(/expected files beside it/);
    writeFileSync(at('m.safetensors.index.json'), '[]');
    await expect(openCheckpoint(at('m.safetensors.index.json'))).rejects.toThrow(/no weight_map/);
  });
});

describe('a file on the web', () => {
  const file = writeSafetensors([['x', writableTensor(rng.normal(5000), [5000])]]);
  let stop: (() => void) | undefined;
  afterEach(() => stop?.());

  /** A server on the loopback address; `answer` may break an answer. */
  async function serve(answer: (response: ServerResponse, part: Uint8Array, request: IncomingMessage) => void): Promise<string> {
    const server = createServer((request, response) => {
      const [, from, to] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '') ?? [];
      const part = file.subarray(Number(from), Number(to) + 1);
      response.statusCode = 206;
      response.setHeader('content-range', `bytes ${from}-${Number(from) + part.length - 1}/${file.length}`);
      answer(response, part, request);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    stop = () => {
      server.closeAllConnections();
      server.close();
    };
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/model.safetensors`;
  }
  const values = async (url: string) => toFloat32((await readCheckpoint(await urlSource(url, { timeout: 300, retries: 2, backoff: 1 }))).tensors.get('x')!);

  it('is read by ranges, also where connections break off', async () => {
    const wanted = await toFloat32((await readCheckpoint({ name: 'x', size: file.length, read: async (o, l) => file.subarray(o, o + l) })).tensors.get('x')!);
    let requests = 0;
    expect(await values(await serve((response, part) => response.end(part)))).toEqual(wanted);
    stop?.();
    const breaking = await serve((response, part) => {
      // every other answer ends in the middle
      if (requests++ % 2 === 0 || part.length < 100) response.end(part);
      else {
        response.setHeader('content-length', part.length);
        response.write(part.subarray(0, part.length >> 1));
        setTimeout(() => response.destroy(), 5);
      }
    });
    expect(await values(breaking)).toEqual(wanted);
  });

  it.each([
    ['stalls', (response: ServerResponse) => void response.flushHeaders(), /nothing came for 0\.3 s/],
    ['has no such file', (response: ServerResponse) => void response.writeHead(404).end(), /status 404/],
    ['is out of order', (response: ServerResponse) => void response.writeHead(503).end(), /status 503/],
    ['sends the whole file', (response: ServerResponse) => void response.writeHead(200).end(file), /whole files only/],
    ['sends another range', (response: ServerResponse, part: Uint8Array) => void response.writeHead(206, { 'content-range': `bytes 7-9/${file.length}` }).end(part), /sent bytes from 7 where 0/],
    ['sends too much', (response: ServerResponse) => void response.end(file), /more than the/],
  ])('whose server %s ends in one clear error', async (_, answer, message) => {
    const error = await values(await serve(answer)).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(CheckpointError);
    expect((error as Error).message).toMatch(message);
  });

  it('is read where streams cannot be iterated over, as in Safari', async () => {
    const { prototype } = ReadableStream as unknown as { prototype: Record<PropertyKey, unknown> };
    const [own, values_] = [prototype[Symbol.asyncIterator], prototype['values']];
    delete prototype[Symbol.asyncIterator];
    delete prototype['values'];
    try {
      expect(await values(await serve((response, part) => response.end(part)))).toHaveLength(5000);
    } finally {
      Object.assign(prototype, { [Symbol.asyncIterator]: own, values: values_ });
    }
  });

  it('whose place a page may not see is asked for once, and said', async () => {
    let requests = 0;
    const hidden = await serve((response, part) => {
      requests++;
      response.removeHeader('content-range');
      response.end(part);
    });
    await expect(values(hidden)).rejects.toThrow(/does not tell which part it sent: no Content-Range came, or this page may not see it/);
    expect(requests).toBe(1);
  });

  it('waits between tries, and not beyond the signal', async () => {
    const times: number[] = [];
    const busy = await serve((response) => {
      times.push(performance.now());
      response.writeHead(503).end();
    });
    await expect(urlSource(busy, { retries: 2, backoff: 100 })).rejects.toThrow(/status 503/);
    expect(times[1]! - times[0]!).toBeGreaterThan(95);
    expect(times[2]! - times[1]!).toBeGreaterThan(195);
    const began = performance.now();
    await expect(urlSource(busy, { retries: 2, backoff: 30_000, signal: AbortSignal.timeout(300) })).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(performance.now() - began).toBeLessThan(10_000);
  });

  it('that nobody serves', async () => {
    await expect(values('http://127.0.0.1:9/x.safetensors')).rejects.toThrow(/cannot be reached/);
  });
});
