import { type StateDict, type TensorRecord, bytesPerValue } from '@tinyfusion/weights';
import { type StackFamily, stackFamilies } from './stack-families.js';

/** A stack of blocks in a checkpoint. */
export interface FoundStack {
  /** Its name with all prefixes, as `pruneState` takes it. */
  name: string;
  /** Highest number of a block plus one: the depth of the model it was, where it has holes. */
  depth: number;
  /** Number of blocks. */
  blocks: number;
  /** Numbers below the depth that no block has. */
  holes: number[];
  /** Values in all blocks, as they are stored: packed ones count once for each stored value. */
  parameters: number;
  bytes: number;
  /** Whether all blocks have tensors of the same names, types and shapes. */
  uniform: boolean;
  /** Blocks unlike most, e.g. the last of SD3, which has no text stream. Keep those whose place in the model is fixed. */
  odd: number[];
  /** Whether the last block has other tensors than any other block: its place in the model is fixed. */
  ownLast: boolean;
}

/** What {@link findStacks} found. */
export interface FoundStacks {
  /** Largest first. */
  stacks: FoundStack[];
  /** Those to cut where nobody says otherwise, in the order in which they run; empty where that is unclear. */
  chosen: string[];
  /** Who names the chosen stacks so; absent where they were not known by name. */
  family?: string;
  /** A sentence for people: what was found and why these were chosen, or what to say. */
  note: string;
}

/**
 * All stacks of a checkpoint, by the names of its tensors alone: nothing is read. A stack is a numbered list whose blocks
 * are mostly alike; lists inside of its blocks (experts, the parts of an MLP) belong to them.
 */
export function findStacks(state: StateDict): FoundStacks {
  const stacks = [...lists(state.tensors, '')].toSorted((a, b) => b.parameters - a.parameters || (a.name < b.name ? -1 : 1));
  const listed = stacks.slice(0, 8).map(describe).join(', ') + (stacks.length > 8 ? `, and ${stacks.length - 8} more` : '');
  if (stacks.length === 0) return { stacks, chosen: [], note: 'no numbered list of like blocks is in the checkpoint: it may be of one layer, or of another kind of model' };
  const known = byName(stacks);
  if (known !== undefined) {
    const { family, places } = known;
    const [{ names: chosen, parameters }, second] = places as [Fit['places'][0], ...Fit['places']];
    if (second !== undefined && 2 * second.parameters > parameters) return { stacks, chosen: [], note: `${places.length} places have stacks as ${family} names them (${places.slice(0, 4).map(({ names }) => names.join(' and ')).join('; ')}): name the one to cut` };
    return { stacks, chosen, family, note: `${chosen.join(' and ')}, as ${family} names ${chosen.length === 1 ? 'its stack' : 'its stacks'}${chosen.length === stacks.length ? '' : `; found: ${listed}`}` };
  }
  const total = stacks.reduce((sum, { parameters }) => sum + parameters, 0);
  const [largest] = stacks;
  if (stacks.length === 1 || largest!.parameters > 0.8 * total) return { stacks, chosen: [largest!.name], note: `${describe(largest!)}: ${stacks.length === 1 ? 'the only stack' : `the largest by far; found: ${listed}`}` };
  return { stacks, chosen: [], note: `no stack is known by its name, and none is the largest by far; name one of: ${listed}` };
}

/** Names and shapes of a block's tensors. */
const shapes = (block: ReadonlyMap<string, TensorRecord>): string => Array.from(block, ([rest, { shape }]) => `${rest} ${shape.join()}`).toSorted().join('\n');

interface Block {
  parameters: number;
  bytes: number;
  /** Names, types and shapes of its tensors. */
  kind: string[];
}

/**
 * The stacks below a prefix, outermost first; a list whose blocks differ is looked into.
 * @yields stacks in the order of their tensors
 */
function* lists(tensors: ReadonlyMap<string, TensorRecord>, prefix: string): Generator<FoundStack> {
  const found = new Map<string, Map<number, Map<string, TensorRecord>>>();
  for (const [name, record] of tensors) {
    const match = /^(.*?[^.])\.(\d{1,6})\.(.+)$/.exec(name);
    if (match === null) continue;
    const [, list, index, rest] = match as unknown as [string, string, string, string];
    const blocks = entry(found, list, () => new Map<number, Map<string, TensorRecord>>());
    entry(blocks, Number(index), () => new Map<string, TensorRecord>()).set(rest, record);
  }
  for (const [list, blocks] of found) {
    const stack = stackOf(prefix + list, blocks);
    if (stack !== undefined) yield stack;
    else for (const [index, inner] of blocks) yield* lists(inner, `${prefix}${list}.${index}.`);
  }
}

/** A numbered list as a stack, where most of its blocks are alike. */
function stackOf(name: string, list: ReadonlyMap<number, ReadonlyMap<string, TensorRecord>>): FoundStack | undefined {
  if (list.size < 2) return undefined;
  const indices = [...list.keys()].toSorted((a, b) => a - b);
  const blocks = new Map(indices.map((index) => [index, measure(list.get(index)!)]));
  const kinds = new Map<string, number[]>();
  for (const [index, { kind }] of blocks) entry(kinds, kind.join('\n'), () => [] as number[]).push(index);
  const usual = [...kinds.values()].reduce((a, b) => (b.length > a.length ? b : a));
  if (2 * usual.length < indices.length || (usual.length < 2 && kinds.size > 1)) return undefined;
  const depth = indices.at(-1)! + 1;
  const holes: number[] = [];
  for (let i = 0, at = 0; i < depth; i++) {
    if (indices[at] === i) at++;
    else holes.push(i);
  }
  // the layers of a `Sequential`, with activations between them
  if (holes.length > 0 && [...list.values()].every((tensors) => [...tensors.keys()].every((rest) => !rest.includes('.')))) return undefined;
  const odd = indices.filter((index) => !usual.includes(index));
  const sum = (of: 'parameters' | 'bytes'): number => [...blocks.values()].reduce((total, block) => total + block[of], 0);
  return { name, depth, blocks: indices.length, holes, parameters: sum('parameters'), bytes: sum('bytes'), uniform: odd.length === 0, odd, ownLast: indices.length > 2 && !indices.slice(0, -1).some((index) => shapes(list.get(index)!) === shapes(list.get(depth - 1)!)) };
}

function measure(tensors: ReadonlyMap<string, TensorRecord>): Block {
  let [parameters, bytes] = [0, 0];
  const kind: string[] = [];
  for (const [rest, { dtype, shape }] of tensors) {
    const size = shape.reduce((a, b) => a * b, 1);
    parameters += size;
    bytes += size * bytesPerValue[dtype];
    kind.push(`${rest} ${dtype} ${shape.join()}`);
  }
  return { parameters, bytes, kind: kind.toSorted() };
}

/** Places where all of a family's stacks are below one prefix. */
interface Fit {
  family: string;
  /** One list of stacks a prefix, the largest first. */
  places: { names: string[]; parameters: number }[];
}

/** The first family that fits; of common names the one with the largest stacks. */
function byName(stacks: readonly FoundStack[]): Fit | undefined {
  const sizes = new Map(stacks.map(({ name, parameters }) => [name, parameters]));
  const fit = ({ name: family, stacks: [first, ...others] }: StackFamily): Fit => {
    const prefixes = stacks.flatMap(({ name }) => (name === first || name.endsWith(`.${first}`) ? [name.slice(0, name.length - first!.length)] : []));
    const whole = prefixes.map((prefix) => [first!, ...others].map((field) => prefix + field)).filter((names) => names.every((n) => sizes.has(n)));
    const places = whole.map((names) => ({ names, parameters: names.reduce((sum, n) => sum + sizes.get(n)!, 0) }));
    return { family, places: places.toSorted((a, b) => b.parameters - a.parameters) };
  };
  const telling = stackFamilies.filter(({ common }) => common !== true).map(fit).find(({ places }) => places.length > 0);
  if (telling !== undefined) return telling;
  const common = stackFamilies.filter((family) => family.common === true).map(fit).filter(({ places }) => places.length > 0);
  return common.toSorted((a, b) => b.places[0]!.parameters - a.places[0]!.parameters)[0];
}

function describe({ name, blocks, holes, parameters, uniform, odd }: FoundStack): string {
  return `${name} (${blocks} blocks${holes.length === 0 ? '' : ` with ${holes.length} holes`}, ${count(parameters)} values${uniform ? '' : `, unlike: ${odd.slice(0, 4).join(' ')}${odd.length > 4 ? ' …' : ''}`})`;
}

const count = (n: number): string => (n >= 1e9 ? `${(n / 1e9).toFixed(2)} G` : n >= 1e6 ? `${(n / 1e6).toFixed(2)} M` : String(n));

function entry<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) map.set(key, (value = make()));
  return value;
}
