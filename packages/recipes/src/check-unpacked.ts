import { ArgumentError } from '@tinyfusion/core';
import { Linear, type Module } from '@tinyfusion/nn';

/** @throws ArgumentError where a model whose weights are to be trained holds them packed, without adapters that train in their place */
export function checkUnpacked(argument: string, model: Module): void {
  const layers = [...model.namedModules()].flatMap(([, module]) => (module instanceof Linear ? [module] : []));
  const packed = layers.find(({ packing }) => packing !== undefined);
  if (packed !== undefined && layers.every(({ plain }) => plain)) throw new ArgumentError(argument, `packed as ${packed.packing}`, 'weights in float32, as packed ones are not trained: load it as F32, or train adapters on it');
}
