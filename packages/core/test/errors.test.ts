import { describe, expect, it } from 'vitest';
import { ArgumentError, BackendError, CancelledError, CheckpointError, DataError, ShapeError, TinyFusionError } from '../src/index.js';

const errors = { ArgumentError: new ArgumentError('a', 1, 'b'), ShapeError: new ShapeError('x', [1], '2'), CheckpointError: new CheckpointError('c'), DataError: new DataError('d'), BackendError: new BackendError('e'), CancelledError: new CancelledError('f') };
const classes = { ArgumentError, ShapeError, CheckpointError, DataError, BackendError, CancelledError };

describe('isInstance', () => {
  it.each(Object.entries(classes))('of %s is true of its own errors alone', (name, own) => {
    expect(Object.entries(errors).filter(([, error]) => own.isInstance(error)).map(([n]) => n)).toEqual([name]);
    for (const other of [new TinyFusionError('RANK_FAILED', 'x'), new Error('CHECKPOINT'), { code: 'CHECKPOINT' }, undefined, null]) expect(own.isInstance(other)).toBe(false);
  });

  it('of the base is true of all, and of those of another copy', () => {
    for (const error of Object.values(errors)) expect(TinyFusionError.isInstance(error)).toBe(true);
    const copy = Object.assign(new Error('from afar'), { code: 'CHECKPOINT', [Symbol.for('tinyfusion.error')]: true });
    expect([TinyFusionError.isInstance(copy), CheckpointError.isInstance(copy), DataError.isInstance(copy)]).toEqual([true, true, false]);
  });
});

it.each([
  [{ a: 1n }, '{"a":"1n"}'],
  [2n, '2n'],
  [[1n, ['x', undefined]], '[1n, ["x", undefined]]'],
  [Symbol('s'), 'Symbol(s)'],
  [(() => { const cyclic: Record<string, unknown> = {}; cyclic['self'] = cyclic; return cyclic; })(), '[object Object]'],
  [(() => { const list: unknown[] = [1]; list.push(list); return list; })(), '[1, …]'],
  [{ toJSON: () => undefined }, '[object Object]'],
  [null, 'null'],
] as const)('a message shows what came, whatever it is', (value, shown) => {
  expect(new ArgumentError('x', value, 'less').message).toBe(`x is ${shown}, expected less`);
});
