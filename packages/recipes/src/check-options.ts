import { ArgumentError } from '@tinyfusion/core';

/** @throws ArgumentError where an option is no finite number above 0 */
export function checkPositive(option: string, value: number): void {
  if (!(value > 0 && value < Infinity)) throw new ArgumentError(option, value, 'a finite number above 0');
}

/** @throws ArgumentError where an option is no finite number from 0 to `most` */
export function checkFrom0(option: string, value: number, most = Infinity): void {
  if (!(value >= 0 && value <= most && value < Infinity)) throw new ArgumentError(option, value, most === Infinity ? 'a finite number from 0' : `a number from 0 to ${most}`);
}

/** @throws ArgumentError where an option is no positive integer */
export function checkCount(option: string, value: number): void {
  if (!(Number.isInteger(value) && value > 0)) throw new ArgumentError(option, value, 'a positive integer');
}

/** @throws ArgumentError where an option is none of its values */
export function checkOneOf<T extends string>(option: string, value: T, values: readonly T[]): void {
  if (!values.includes(value)) throw new ArgumentError(option, value, `one of ${values.map((v) => `'${v}'`).join(', ')}`);
}

/** @throws ArgumentError where the decay of an average is none */
export function checkDecay(option: string, value: number): void {
  if (!(value >= 0 && value < 1)) throw new ArgumentError(option, value, 'a number in [0, 1)');
}
