export { AdamW, type AdamWOptions, type AdamWStepOptions } from './adamw.js';
export { broadcastBytes, broadcastJson, broadcastParameters, broadcastTrainingState } from './collective/broadcast.js';
export { anyRank, singleCollective, type Collective, type CollectiveArray, type Reduction } from './collective/collective.js';
export { reduceGradients, type ReduceGradientsOptions } from './collective/reduce-gradients.js';
export { failThread, threadCollective, threadMemory } from './collective/thread-collective.js';
export { Ema, type EmaOptions } from './ema.js';
export { clipFactor, globalNorm, lossAndGradients, type LossAndGradients } from './gradients.js';
export { constant, cosine, withWarmUp, type CosineOptions, type Schedule } from './schedules.js';
export { restoreTrainingState, saveTrainingState, trainingProgress, type TrainingParts } from './training-state.js';
