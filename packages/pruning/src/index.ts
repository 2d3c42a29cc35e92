export { BlockError } from './block-error.js';
export { BlockInfluence } from './block-influence.js';
export { BlockMeasure } from './block-measure.js';
export { atRandom, byIndex, firstLayers, lastLayers, leastRedundant, oracle, uniformLayers } from './choices.js';
export { maskHook } from './mask-hook.js';
export { PRUNE_RECORD_KEY, pruneMetadata, readPruneRecord, type PruneRecord } from './prune-record.js';
export { pruneBlocks, pruneState, stackDepth } from './surgery.js';
export { sensitivities } from './sensitivity.js';
