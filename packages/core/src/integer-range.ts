import { ArgumentError } from './errors.js';

/** @throws ArgumentError where integers in [low, high) are none, or do not fit an Int32Array */
export function checkIntegerRange(what: string, low: number, high: number): void {
  if (!Number.isInteger(low) || !Number.isInteger(high) || high <= low) throw new ArgumentError(`${what}: [low, high)`, [low, high], 'integers with low < high');
  if (low < -(2 ** 31) || high > 2 ** 31) throw new ArgumentError(`${what}: [low, high)`, [low, high], 'integers from -2^31 to 2^31, as the result holds 32 bits of each');
}
