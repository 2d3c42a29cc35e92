import { ArgumentError } from '@tinyfusion/core';
import type { Linear } from '@tinyfusion/nn';

/** Which linear layers, by path: a pattern, a path or its last names, a list of those, `'all-linear'`, or a test. */
export type LayerChoice = RegExp | string | readonly string[] | ((path: string, layer: Linear) => boolean);

/** Whether a choice names the layer at `path`. In a list, `'qkv'` and `'attn.qkv'` name every path that ends so, as in PEFT. */
export function isChosen(choice: LayerChoice, path: string, layer: Linear): boolean {
  if (typeof choice === 'function') return choice(path, layer);
  // search, unlike test, does not remember where a global pattern matched last
  if (choice instanceof RegExp) return path.search(choice) >= 0;
  return choice === 'all-linear' || endsWithOne(typeof choice === 'string' ? [choice] : choice, path);
}

/** @throws ArgumentError where a choice is of no kind that there is */
export function checkChoice(option: string, choice: LayerChoice): void {
  const names = typeof choice === 'string' ? [choice] : choice;
  if (typeof names !== 'function' && !(names instanceof RegExp) && !(Array.isArray(names) && names.every((name) => typeof name === 'string'))) throw new ArgumentError(option, choice, "a pattern, names such as 'qkv' or ['qkv', 'mlp.fc1'], 'all-linear', or a function of path and layer");
}

/** Whether `path` is one of `names`, or ends with a dot and one of them. */
export function endsWithOne(names: readonly string[], path: string): boolean {
  return names.some((name) => path === name || path.endsWith(`.${name}`));
}
