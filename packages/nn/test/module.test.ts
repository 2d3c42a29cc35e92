import { ArgumentError, CancelledError, CheckpointError, createRng } from '@tinyfusion/core';
import { parseSafetensors, stateDictOf } from '@tinyfusion/weights';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { type BlockHook, LayerNorm, Linear, Module, captureFeatures, composeHooks, hooksByStack, loadState, moduleAt, readState, replaceModule, runBlocks, storedConfig, toSafetensors } from '../src/index.js';

class Block extends Module {
  readonly fc: Linear;
  constructor(rng: ReturnType<typeof createRng>) {
    super();
    this.fc = new Linear(3, 3, { init: rng });
  }
}

class Net extends Module {
  readonly blocks: Block[];
  readonly mlp: readonly [Linear, (x: tf.Tensor) => tf.Tensor, LayerNorm];
  constructor(seed = 0) {
    super();
    const rng = createRng(seed);
    this.blocks = [new Block(rng), new Block(rng)];
    this.mlp = [new Linear(3, 2, { init: rng, bias: false }), tf.relu, new LayerNorm(2, { init: rng })];
  }
}

const names = ['blocks.0.fc.weight', 'blocks.0.fc.bias', 'blocks.1.fc.weight', 'blocks.1.fc.bias', 'mlp.0.weight', 'mlp.2.weight', 'mlp.2.bias'];

describe('a module', () => {
  it('frees what is below it by its own dispose, and is not stored where something in it cannot be', async () => {
    let freed = 0;
    class Held extends Linear {
      override get unstorable(): string {
        return 'something else';
      }
      override dispose(): void {
        freed += 1;
        super.dispose();
      }
    }
    const before = tf.memory().numTensors;
    const net = new Net();
    replaceModule(net, 'blocks.1.fc', new Held(3, 3, { init: createRng(1) })).dispose();
    await expect(toSafetensors(net, { type: 'Net', config: {} })).rejects.toThrow('save Net: blocks.1.fc is "Held", expected something else');
    net.dispose();
    expect(freed).toBe(1);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('is stored in halves where halves can hold it', async () => {
    const net = new Net();
    const { weight } = net.blocks[0]!.fc;
    tf.tidy(() => weight.assign(tf.fill(weight.shape, 1e5)));
    await expect(toSafetensors(net, { type: 'Net', config: {}, dtype: 'F16' })).rejects.toThrow('blocks.0.fc.weight has a value of 100000, which F16 cannot hold');
  });

  it('has the names of its fields, as PyTorch has them', () => {
    const net = new Net();
    expect(Array.from(net.namedParameters(), ([name]) => name)).toEqual(names);
    expect(net.parameterCount()).toBe(2 * (9 + 3) + 6 + 4);
  });

  it('gives and takes modules by path', () => {
    const net = new Net();
    const other = new Linear(3, 3, { init: createRng(1) });
    const previous = replaceModule(net, 'blocks.1.fc', other);
    expect(moduleAt(net, 'blocks.1.fc')).toBe(other);
    expect(previous).toBeInstanceOf(Linear);
    expect(() => moduleAt(net, 'blocks.1.attn')).toThrow(/at "attn" there are: fc/);
    expect(() => moduleAt(net, 'blocks')).toThrow(/not a list of modules/);
    expect(() => moduleAt(net, 'constructor')).toThrow(ArgumentError);
  });

  it('frees everything', () => {
    const before = tf.memory().numTensors;
    {
      using net = new Net();
      expect(net.parameterCount()).toBeGreaterThan(0);
    }
    expect(tf.memory().numTensors).toBe(before);
  });
});

describe('first values', () => {
  it.each([[undefined, 'missing'], [null, 'null'], [0, '0'], ['zero', '"zero"'], [{}, '{}'], [{ packed: 'I2' }, '{"packed":"I2"}']])('are not made of %j', (init, shown) => {
    expect(() => new Linear(2, 2, { init: init as never })).toThrow(ArgumentError);
    expect(() => new Linear(2, 2, { init: init as never })).toThrow(`init is ${shown}, expected an Rng, e.g. createRng(0); 'zeros' where a checkpoint follows; or { packed: 'F16' }`);
    expect(() => new LayerNorm(2, { init: init as never })).toThrow(ArgumentError);
  });
});

describe('state', () => {
  it('comes back from a file, in F32 to the bit', async () => {
    const net = new Net(3);
    const file = await parseSafetensors(await toSafetensors(net, { type: 'Net', config: { width: 3 } }));
    const copy = new Net(4);
    await loadState(copy, file);
    expect(await readState(copy)).toEqual(await readState(net));
    expect(storedConfig(file, 'Net')).toEqual({ width: 3 });
    expect(() => storedConfig(file, 'DiT')).toThrow(/holds "Net", expected "DiT"/);
  });

  it('is stored again with the metadata it came with, and says what it is now', async () => {
    const net = new Net(3);
    const { metadata } = await parseSafetensors(await toSafetensors(net, { type: 'Net', config: { width: 3 }, metadata: [['how', 'trained']] }));
    const again = await parseSafetensors(await toSafetensors(net, { type: 'Net', config: { width: 4 }, metadata }));
    expect(storedConfig(again, 'Net')).toEqual({ width: 4 });
    expect(again.metadata.get('how')).toBe('trained');
  });

  it('lists what is missing, unexpected and wrongly shaped, and changes nothing', async () => {
    const net = new Net();
    const before = await readState(net);
    const values = new Map([...before].filter(([name]) => name !== 'mlp.0.weight'));
    values.set('blocks.2.fc.weight', { shape: [3, 3], values: new Float32Array(9) });
    values.set('blocks.0.fc.bias', { shape: [4], values: new Float32Array(4) });
    const state = stateDictOf(values);
    await expect(loadState(net, state)).rejects.toThrow(/missing \(1\): mlp\.0\.weight; unexpected \(1\): blocks\.2\.fc\.weight; wrong shape \(1\): blocks\.0\.fc\.bias is \[4\], expected \[3\]/);
    await expect(loadState(net, state, { strict: false })).rejects.toBeInstanceOf(CheckpointError);
    expect(await readState(net)).toEqual(before);
    values.delete('blocks.0.fc.bias');
    const difference = await loadState(net, stateDictOf(values), { strict: false });
    expect(difference.missing).toEqual(['blocks.0.fc.bias', 'mlp.0.weight']);
  });

  it('tells how far loading is, and can be stopped', async () => {
    const net = new Net();
    const state = stateDictOf(await readState(new Net(5)));
    const steps: string[] = [];
    await loadState(net, state, { onProgress: ({ task, step, total }) => steps.push(`${task} ${step}/${total}`) });
    expect(steps).toEqual(names.map((_, i) => `load weights ${i + 1}/7`));
    const controller = new AbortController();
    const fresh = new Net(6);
    const before = await readState(fresh);
    await expect(loadState(fresh, state, { signal: controller.signal, onProgress: ({ step }) => step === 3 && controller.abort() })).rejects.toBeInstanceOf(CancelledError);
    const after = await readState(fresh);
    expect(names.filter((name) => String(after.get(name)!.values) !== String(before.get(name)!.values))).toEqual(names.slice(0, 3).filter((name) => !name.endsWith('bias')));
  });

  it('tells how far reading is, and can be stopped', async () => {
    const net = new Net();
    const options = { type: 'Net', config: {} };
    const steps: string[] = [];
    await toSafetensors(net, { ...options, onProgress: ({ task, step, total }) => steps.push(`${task} ${step}/${total}`) });
    expect(steps).toEqual(names.map((_, i) => `read weights ${i + 1}/7`));
    await expect(toSafetensors(net, { ...options, signal: AbortSignal.abort() })).rejects.toBeInstanceOf(CancelledError);
  });
});

describe('the block hook', () => {
  const blocks = [2, 3, 5];
  const x = tf.ones([1, 1, 1]) as tf.Tensor3D;
  const run = (hook?: BlockHook) => runBlocks('blocks', blocks, x, (factor, h) => tf.mul(h, factor) as tf.Tensor3D, { hook }).dataSync()[0];

  it('sees every block, may skip it, and composes', () => {
    const seen: string[] = [];
    expect(run((site, h, block) => (seen.push(`${site.stack} ${site.index}/${site.depth}`), block(h)))).toBe(30);
    expect(seen).toEqual(['blocks 0/3', 'blocks 1/3', 'blocks 2/3']);
    expect(run((site, h, block) => (site.index === 1 ? h : block(h)))).toBe(10);
    const twice = composeHooks((_, h, block) => tf.add(block(h), 1) as tf.Tensor3D, undefined, (site, h, block) => (site.index === 0 ? h : block(h)));
    expect(run(twice)).toBe(((1 + 1) * 3 + 1) * 5 + 1);
    expect(run(hooksByStack({ others: () => x, blocks: undefined }))).toBe(30);
  });

  it('captures outputs that outlive the pass, and leaves nothing else', () => {
    const before = tf.memory().numTensors;
    const capture = captureFeatures([0, 2]);
    const out = tf.tidy(() => runBlocks('blocks', blocks, x, (factor, h) => tf.mul(h, factor) as tf.Tensor3D, { hook: capture.hook }));
    const taken = capture.take();
    expect(Array.from(taken, ([i, f]) => [i, f.dataSync()[0]])).toEqual([[0, 2], [2, 30]]);
    expect(capture.take().size).toBe(0);
    tf.dispose([out, ...taken.values()]);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('captures the latest pass where nobody took the one before', () => {
    const before = tf.memory().numTensors;
    const capture = captureFeatures([0]);
    for (let i = 0; i < 3; i++) runBlocks('blocks', blocks, x, (factor, h) => tf.mul(h, factor + i) as tf.Tensor3D, { hook: capture.hook }).dispose();
    const taken = capture.take();
    expect(taken.get(0)!.dataSync()[0]).toBe(4);
    tf.dispose([...taken.values()]);
    expect(tf.memory().numTensors).toBe(before);
  });

  it('captures of the stack that is named, and does not mix two', () => {
    const pass = ({ hook }: { hook: BlockHook }): tf.Tensor => tf.tidy(() => runBlocks('decoder', [7], runBlocks('encoder', blocks, x, (factor, h) => tf.mul(h, factor) as tf.Tensor3D, { hook }), (factor, h) => tf.mul(h, factor) as tf.Tensor3D, { hook }));
    for (const [stack, value] of [['encoder', 2], ['decoder', 210]] as const) {
      const capture = captureFeatures([0], { stack });
      pass(capture);
      expect(Array.from(capture.take(), ([i, f]) => [i, f.dataSync()[0]])).toEqual([[0, value]]);
    }
    expect(() => pass(captureFeatures([0]))).toThrow('captureFeatures: stack is missing, expected the name of one stack: encoder and decoder both have block 0');
    pass(captureFeatures([1]));
  });

  it('gives back a copy where there is no block', () => {
    const y = runBlocks('blocks', [], x, (_, h) => h);
    y.dispose();
    expect(x.isDisposed).toBe(false);
  });
});
