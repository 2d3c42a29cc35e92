import { ArgumentError } from '@tinyfusion/core';
import { stackFamilies } from './stack-families.js';

/** Keys whose lists name layers by index; they keep what is left of them, renumbered. */
const INDEX_LISTS = ['dual_attention_layers', 'moe_layers'];

/**
 * A model's `config.json` after its checkpoint was cut: the stack's depth (`num_layers`, `num_single_layers`, `depth`,
 * `num_hidden_layers`, …), lists with one entry a layer (`layer_types`), and lists of layer indices
 * (`dual_attention_layers` of SD3.5).
 *
 * @param config the file's contents, parsed; not changed
 * @param stack as in the checkpoint, with any prefix
 * @param kept as given to `pruneState`
 * @throws ArgumentError where the configuration has no depth for such a stack, with the keys that might be one, or the
 * depth does not fit the kept blocks
 */
export function prunedConfig(config: Readonly<Record<string, unknown>>, stack: string, kept: readonly number[]): Record<string, unknown> {
  const keys = depthKeys(config, stack);
  const key = keys.find((name) => Number.isInteger(config[name]));
  if (key === undefined) {
    const numbers = Object.keys(config).filter((name) => Number.isInteger(config[name]) && /layer|depth|block/i.test(name));
    throw new ArgumentError('stack', stack, `one whose depth the configuration has${keys.length === 0 ? '' : ` as ${keys.join(' or ')}`}; it has: ${numbers.join(', ') || 'no number of layers at all'}`);
  }
  const depth = config[key] as number;
  if (kept.length === 0 || !kept.every((k, i) => Number.isInteger(k) && k >= 0 && k < depth && (i === 0 || k > kept[i - 1]!))) throw new ArgumentError('kept layers', kept, `ascending indices below ${depth}, the configuration's ${key}`);
  const place = new Map(kept.map((layer, i) => [layer, i]));
  const pruned: Record<string, unknown> = { ...config, [key]: kept.length };
  // where there are two stacks, such lists are the first one's
  if (/single|decoder/i.test(key)) return pruned;
  for (const [name, value] of Object.entries(config)) {
    if (!Array.isArray(value)) continue;
    if (INDEX_LISTS.includes(name)) pruned[name] = value.flatMap((layer: unknown) => place.get(layer as number) ?? []);
    else if (value.length === depth && /layer|block/i.test(name)) pruned[name] = kept.map((layer) => value[layer] as unknown);
  }
  return pruned;
}

/** Keys under which a stack's depth may be, those of the families that fit the configuration better first. */
function depthKeys(config: Readonly<Record<string, unknown>>, stack: string): string[] {
  const fitting = stackFamilies.flatMap(({ stacks, depths }) => {
    const at = stacks.findIndex((field) => stack === field || stack.endsWith(`.${field}`));
    if (at < 0) return [];
    const whole = depths.every((names) => names.some((name) => Number.isInteger(config[name])));
    return [{ whole, names: depths[at]! }];
  });
  return [...new Set(fitting.toSorted((a, b) => Number(b.whole) - Number(a.whole)).flatMap(({ names }) => names))];
}
