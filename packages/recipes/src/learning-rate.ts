import { ArgumentError } from '@tinyfusion/core';

/** @throws ArgumentError where a learning rate would make a loss grow, or is no number; 0 holds still what it is of */
export function checkRate(name: string, value: number): void {
  if (!(value >= 0 && value < Infinity)) throw new ArgumentError(name, value, 'a finite number from 0, e.g. 1e-3; less than 0 would climb the loss');
}
