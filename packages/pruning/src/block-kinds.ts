import type { Module } from '@tinyfusion/nn';

/** A label for each block that those of the same class and the same parameters by name and shape have too: they do the same work. */
export function blockKinds(blocks: readonly Module[]): string[] {
  return blocks.map((block) => [block.constructor.name, ...Array.from(block.namedParameters(), ([name, { shape }]) => `${name} ${shape.join('×')}`)].join(', '));
}
