/** Numbers as a person reads them. */

const grouped = new Intl.NumberFormat('en');

/** 2,071,234 as "2.07 M". */
export function short(n: number): string {
  if (n >= 1e9) return `${(n / 1e9).toPrecision(3)} G`;
  if (n >= 1e6) return `${(n / 1e6).toPrecision(3)} M`;
  return n >= 1e4 ? `${(n / 1e3).toPrecision(3)} k` : grouped.format(n);
}

export const whole = (n: number): string => grouped.format(n);

export function megabytes(n: number): string {
  if (n >= 1e9) return `${(n / 1e9).toPrecision(3)} GB`;
  return n < 1e6 ? `${Math.ceil(n / 1e3)} kB` : `${(n / 1e6).toPrecision(3)} MB`;
}

export const percent = (x: number): string => `${x > 0 && x < 0.0995 ? (100 * x).toPrecision(2) : Math.round(100 * x)} %`;

/** A change as "+12 %". */
export const change = (x: number): string => `${x < 0 ? '−' : '+'}${percent(Math.abs(x))}`;

export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** How blocks were chosen. */
export const chosenBy = (criterion: string): string => (criterion === 'hand' ? 'by hand' : criterion);
