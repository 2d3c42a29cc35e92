import { ArgumentError } from '@tinyfusion/core';
import * as tf from '@tensorflow/tfjs-core';

/**
 * A tree of parameters: an object whose fields are variables, modules, or arrays of modules. Paths are field names
 * joined with dots, so a module written like its PyTorch original has its state-dict keys. Parameters keep PyTorch's
 * layouts too (linear `[out, in]`, convolution `[out, in, kh, kw]`).
 */
export abstract class Module {
  /**
   * Every parameter and buffer with its path, in field order. Buffers are variables that are not trainable.
   * @yields `['blocks.0.attn.qkv.weight', variable]`
   */
  *namedParameters(prefix = ''): Generator<[string, tf.Variable]> {
    for (const [path, node] of walk(this, prefix)) if (node instanceof tf.Variable) yield [path, node];
  }

  /**
   * This module and every module below it, with its path.
   * @yields `['blocks.0.attn', module]`
   */
  *namedModules(prefix = ''): Generator<[string, Module]> {
    for (const [path, node] of walk(this, prefix)) if (node instanceof Module) yield [path, node];
  }

  /** Every trainable parameter, in field order. */
  parameters(): tf.Variable[] {
    return Array.from(this.namedParameters(), ([, p]) => p).filter((p) => p.trainable);
  }

  /** Number of values in the trainable parameters, as papers count them; of packed weights, which are not trained, those they stand for. */
  parameterCount(): number {
    const trainable = this.parameters().reduce((sum, p) => sum + p.size, 0);
    return Array.from(this.namedModules(), ([, module]) => module.packedCount).reduce((sum, count) => sum + count, trainable);
  }

  /** Number of values that packed weights of this module itself stand for. */
  protected get packedCount(): number {
    return 0;
  }

  /** Frees every parameter and buffer. */
  dispose(): void {
    for (const [, p] of this.namedParameters()) p.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function* walk(node: unknown, path: string): Generator<[string, tf.Variable | Module]> {
  if (node instanceof tf.Variable) yield [path, node];
  else if (node instanceof Module || Array.isArray(node)) {
    if (node instanceof Module) yield [path, node];
    for (const [name, child] of Object.entries(node)) yield* walk(child, path === '' ? name : `${path}.${name}`);
  }
}

/**
 * The module at a dotted path.
 * @throws ArgumentError where there is none, with the names that are there
 */
export function moduleAt(root: Module, path: string): Module {
  let node: unknown = root;
  for (const name of path === '' ? [] : path.split('.')) {
    const child: unknown = Object.hasOwn(node as object, name) ? (node as Record<string, unknown>)[name] : undefined;
    if (!(child instanceof Module) && !Array.isArray(child)) {
      throw new ArgumentError('module path', path, `a path below ${root.constructor.name}; at ${JSON.stringify(name)} there are: ${childNames(node).join(', ')}`);
    }
    node = child;
  }
  if (!(node instanceof Module)) throw new ArgumentError('module path', path, 'a module, not a list of modules');
  return node;
}

/**
 * Puts `module` in the place of the one at `path`, which is returned and not disposed. This is how adapters and
 * surgery change a model that does not know them.
 */
export function replaceModule(root: Module, path: string, module: Module): Module {
  const previous = moduleAt(root, path);
  const dot = path.lastIndexOf('.');
  const name = path.slice(dot + 1);
  let parent: unknown = root;
  for (const part of dot < 0 ? [] : path.slice(0, dot).split('.')) parent = (parent as Record<string, unknown>)[part];
  (parent as Record<string, unknown>)[name] = module;
  return previous;
}

function childNames(node: unknown): string[] {
  return Object.entries(node as object)
    .filter(([, child]) => child instanceof Module || Array.isArray(child))
    .map(([name]) => name);
}
