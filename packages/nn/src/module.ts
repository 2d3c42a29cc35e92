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

  /**
   * Another number whenever this module itself begins to compute something else without a change of its parameters, as an
   * adapter does that is switched on. What was recorded or remembered of a model holds while none changes. Default 0.
   */
  get revision(): number {
    return 0;
  }

  /** What this module itself should be instead, in words, where its parameters alone do not make its like again; see {@link requireStorable}. */
  get unstorable(): string | undefined {
    return undefined;
  }

  /** Frees every parameter and buffer; modules below do it by their own `dispose`. */
  dispose(): void {
    for (const field of Object.values(this)) free(field);
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

function free(field: unknown): void {
  if (field instanceof tf.Variable || field instanceof Module) field.dispose();
  else if (Array.isArray(field)) for (const item of field) free(item);
}

/**
 * Checks that a model is what its parameters say, before they are stored, copied or exported.
 * @param what who asks
 * @throws ArgumentError that names the first module which is more, and what to do about it
 */
export function requireStorable(what: string, root: Module): void {
  for (const [path, module] of root.namedModules()) if (module.unstorable !== undefined) throw new ArgumentError(`${what}: ${path}`, module.constructor.name, module.unstorable);
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
