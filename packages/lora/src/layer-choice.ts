import type { Linear } from '@tinyfusion/nn';

/** Which linear layers, by path: a pattern, a list of paths or of their last names, or a test. */
export type LayerChoice = RegExp | readonly string[] | ((path: string, layer: Linear) => boolean);

/** Whether a choice names the layer at `path`. In a list, `'qkv'` and `'attn.qkv'` name every path that ends so, as in PEFT. */
export function isChosen(choice: LayerChoice, path: string, layer: Linear): boolean {
  if (typeof choice === 'function') return choice(path, layer);
  // search, unlike test, does not remember where a global pattern matched last
  if (choice instanceof RegExp) return path.search(choice) >= 0;
  return endsWithOne(choice, path);
}

/** Whether `path` is one of `names`, or ends with a dot and one of them. */
export function endsWithOne(names: readonly string[], path: string): boolean {
  return names.some((name) => path === name || path.endsWith(`.${name}`));
}
