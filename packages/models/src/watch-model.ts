import type { Module } from '@tinyfusion/nn';

/**
 * Notes what a model computes with: the tensor of every parameter, and the revision of every module.
 * @returns what has changed since, by its path; nothing while the model is the same
 */
export function watchModel(model: Module): () => string | undefined {
  const noted = stateOf(model);
  return () => {
    const now = stateOf(model);
    for (const [path, state] of noted) if (now.get(path) !== state) return path;
    return [...now.keys()].find((path) => !noted.has(path));
  };
}

function stateOf(model: Module): Map<string, unknown> {
  const state = new Map<string, unknown>();
  for (const [path, variable] of model.namedParameters()) state.set(path, variable.isDisposed ? undefined : variable.dataId);
  for (const [path, { revision }] of model.namedModules()) state.set(path === '' ? 'the model' : path, revision);
  return state;
}
