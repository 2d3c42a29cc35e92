import { ArgumentError } from '@tinyfusion/core';

/** A run of neighbouring layers and the choices among them. */
export interface OptionGroup {
  /** Index of the first layer. */
  readonly start: number;
  /** Number of layers. */
  readonly size: number;
  /** Kept layers of each choice, as indices inside the group, ascending. */
  readonly options: readonly (readonly number[])[];
  readonly relaxed?: false;
}

/** N of M neighbouring layers are kept: the options are all ways to, in lexicographic order (`itertools.combinations`). */
export interface ListedGroup extends OptionGroup {
  /** N: how many of the `size` (M) layers are kept. */
  readonly kept: number;
  readonly relaxed: false;
}

/** N of M neighbouring layers are kept, in too many ways to list: one logit a layer, and the N highest stay. */
export interface RelaxedGroup extends Omit<ListedGroup, 'relaxed'> {
  /** None are listed. */
  readonly options: readonly [];
  readonly relaxed: true;
}

/** A group of an N:M scheme. */
export type Group = ListedGroup | RelaxedGroup;

/** Any group that gates can choose from. */
export type AnyGroup = OptionGroup | RelaxedGroup;

/** `'1:2'`, repeated over the depth, or one `[N, M]` a group, e.g. `[[2, 4], [3, 4]]`. */
export type GroupScheme = string | readonly (readonly [kept: number, size: number])[];

/** Options of {@link parseGroups}. */
export interface ParseGroupsOptions {
  /** Groups with more options than this are relaxed. Default 20,000: 8:16 is listed, 9:18 and the paper's 14:28 are not. */
  mostOptions?: number;
}

/**
 * The groups of a scheme over `depth` layers (paper, section 3.3). Groups with very many options are marked as
 * relaxed, and list none.
 * @throws ArgumentError where they do not add up to the depth, or a group keeps none, or more than it has
 */
export function parseGroups(scheme: GroupScheme, depth: number, { mostOptions = 20_000 }: ParseGroupsOptions = {}): Group[] {
  if (!Number.isInteger(depth) || depth < 1) throw new ArgumentError('groups: depth', depth, 'a positive number of layers');
  if (typeof scheme !== 'string' && !(Array.isArray(scheme) && scheme.every(Array.isArray))) throw new ArgumentError('groups', scheme, "N:M, e.g. '1:2', or a list of [N, M]");
  const list = typeof scheme === 'string' ? repeat(scheme, depth) : scheme;
  const total = list.reduce((sum, [, size]) => sum + size, 0);
  if (total !== depth) throw new ArgumentError('groups', scheme, `groups that cover the model's ${depth} layers; these cover ${total}`);
  let start = 0;
  return list.map(([kept, size]): Group => {
    if (!Number.isInteger(kept) || !Number.isInteger(size) || kept < 1 || kept > size) throw new ArgumentError('groups', [kept, size], 'N:M with 1 ≤ N ≤ M');
    const at = start;
    start += size;
    return binomial(size, kept) > mostOptions ? { start: at, size, kept, options: [], relaxed: true } : { start: at, size, kept, options: combinations(size, kept), relaxed: false };
  });
}

/** Every way to choose `k` of 0 … n − 1, in lexicographic order. */
export function combinations(n: number, k: number): number[][] {
  const out: number[][] = [];
  const choice = Array.from({ length: k }, (_, i) => i);
  for (;;) {
    out.push([...choice]);
    let i = k - 1;
    while (i >= 0 && choice[i] === n - k + i) i--;
    if (i < 0) return out;
    choice[i]! += 1;
    for (let j = i + 1; j < k; j++) choice[j] = choice[j - 1]! + 1;
  }
}

/** n over k. */
export function binomial(n: number, k: number): number {
  let result = 1;
  for (let i = 1; i <= k; i++) result = (result * (n - k + i)) / i;
  return Math.round(result);
}

function repeat(scheme: string, depth: number): [number, number][] {
  const match = /^(\d+):(\d+)$/.exec(scheme);
  if (match === null) throw new ArgumentError('groups', scheme, "N:M, e.g. '1:2', or a list of [N, M]");
  const [kept, size] = [Number(match[1]), Number(match[2])];
  if (size < 1 || depth % size !== 0) {
    const fitting = Array.from({ length: depth }, (_, i) => i + 1).filter((m) => depth % m === 0 && m > 1);
    throw new ArgumentError('groups', scheme, `N:M whose M divides the model's ${depth} layers; M can be ${fitting.join(', ')}`);
  }
  return Array.from({ length: depth / size }, () => [kept, size]);
}
