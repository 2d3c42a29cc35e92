// JSON has no words for NaN and ±∞, and the curve of a run may hold them
const withNonFinite = (_key: string, value: unknown): unknown => (typeof value === 'number' && !Number.isFinite(value) ? { $number: String(value) } : value);
const fromNonFinite = (_key: string, value: unknown): unknown => (typeof value === 'object' && value !== null && '$number' in value ? Number(value.$number) : value);

/** JSON that keeps numbers which are not finite. */
export function progressText(value: unknown): string {
  return JSON.stringify(value, withNonFinite);
}

/** What {@link progressText} wrote. */
export function parseProgress(text: string): unknown {
  return JSON.parse(text, fromNonFinite);
}
