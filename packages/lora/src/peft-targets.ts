import { CheckpointError } from '@tinyfusion/core';
import type { Module } from '@tinyfusion/nn';
import { endsWithOne } from './layer-choice.js';
import type { PeftConfig } from './peft-config.js';
import { LoraLinear } from './lora-linear.js';
import { escaped } from './patterns.js';

/** Whether PEFT would adapt the layer at `path`, were it a linear one. @throws CheckpointError where a pattern is none in JavaScript */
export function isTargeted({ target_modules: targets, exclude_modules: exclude = null }: PeftConfig, path: string): boolean {
  if (exclude !== null && exclude.length > 0 && fits(exclude, path)) return false;
  return targets === null || (typeof targets === 'string' && targets.toLowerCase() === 'all-linear') || fits(targets, path);
}

/** Whether a configuration says for each layer whether it is adapted, so that one without tensors is an error. */
export function saysWhichLayers({ target_modules: targets, layers_to_transform: layers }: PeftConfig): boolean {
  return targets !== null && !(typeof targets === 'string' && targets.toLowerCase() === 'all-linear') && (layers === null || (Array.isArray(layers) && layers.length === 0));
}

/**
 * `target_modules` that name these layers of a model and none of its other modules by PEFT's rule: the ends of their
 * paths, else the paths, else a pattern.
 */
export function describeTargets(root: Module, paths: readonly string[]): string[] | string {
  const chosen = new Set(paths);
  const all = modulePaths(root);
  const ends = [...new Set(paths.map((path) => path.slice(path.lastIndexOf('.') + 1)))].toSorted();
  const list = [ends, [...paths]].find((names) => all.every((path) => endsWithOne(names, path) === chosen.has(path)));
  return list ?? `(${paths.map(escaped).join('|')})`;
}

/** Paths of a model's modules, those of the adapters apart. */
function modulePaths(root: Module): string[] {
  const adapters = new Set<Module>();
  const paths: string[] = [];
  for (const [path, module] of root.namedModules()) {
    if (module instanceof LoraLinear) for (const [, inner] of module.lora.namedModules()) adapters.add(inner);
    if (path !== '' && !adapters.has(module)) paths.push(path);
  }
  return paths;
}

function fits(names: string[] | string, path: string): boolean {
  if (typeof names !== 'string') return endsWithOne(names, path);
  try {
    return new RegExp(`^(?:${names})$`, 'u').test(path);
  } catch (cause) {
    throw new CheckpointError(`the adapter configuration has the pattern ${JSON.stringify(names)}, which JavaScript does not understand (${cause instanceof Error ? cause.message : String(cause)}); list the layers instead`, { cause });
  }
}
