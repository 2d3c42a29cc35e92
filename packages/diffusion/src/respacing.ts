import { ArgumentError } from '@tinyfusion/core';

/**
 * The original timesteps that a shorter process keeps, ascending.
 *
 * @param spec `'250'`: so many, evenly spaced; `'10,15,20'`: so many in each of three equal sections of the process;
 * `'ddim50'`: every k-th step for the k that gives exactly 50; `''`: all
 * @throws ArgumentError where a section has fewer steps than asked for, or no stride gives the number. Upstream:
 * `space_timesteps`
 */
export function spacedTimesteps(steps: number, spec: string): number[] {
  if (typeof spec !== 'string') throw new ArgumentError('respacing', spec, "a text: '250', '10,15,20' or 'ddim50'");
  if (spec === '') return Array.from({ length: steps }, (_, t) => t);
  const ddim = /^ddim(\d+)$/.exec(spec);
  if (ddim !== null) {
    const wanted = Number(ddim[1]);
    for (let stride = 1; stride < steps; stride++) {
      if (Math.ceil(steps / stride) === wanted) return Array.from({ length: wanted }, (_, i) => i * stride);
    }
    throw new ArgumentError('respacing', spec, `a number of steps that an integer stride over ${steps} gives exactly`);
  }
  if (!/^\d+(,\d+)*$/.test(spec)) throw new ArgumentError('respacing', spec, "a number of steps ('250'), one for each section ('10,15,20'), or 'ddim' and a number ('ddim50')");
  const counts = spec.split(',').map(Number);
  const base = Math.floor(steps / counts.length);
  const longer = steps % counts.length;
  const kept = new Set<number>();
  let start = 0;
  for (const [i, count] of counts.entries()) {
    const size = base + (i < longer ? 1 : 0);
    if (count < 1 || size < count) throw new ArgumentError('respacing', spec, `1 to ${size} steps in section ${i + 1} of ${counts.length}`);
    const stride = count <= 1 ? 1 : (size - 1) / (count - 1);
    let position = 0;
    for (let n = 0; n < count; n++) {
      kept.add(start + roundHalfEven(position));
      position += stride;
    }
    start += size;
  }
  return [...kept].toSorted((a, b) => a - b);
}

/** Rounds as Python does: halves go to the even neighbour. */
function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}
