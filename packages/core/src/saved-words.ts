/** Whether a saved value is a list of so many unsigned integers of 32 bits. */
export function areWords(value: unknown, count: number): value is readonly number[] {
  return Array.isArray(value) && value.length === count && value.every((word) => isCount(word) && word < 2 ** 32);
}

/** Whether a saved value is an integer from 0 to 2^53 − 1. */
export function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
