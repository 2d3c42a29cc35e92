export { AdamW, type AdamWOptions, type AdamWStepOptions } from './adamw.js';
export { Ema, type EmaOptions } from './ema.js';
export { clipFactor, globalNorm, lossAndGradients, type LossAndGradients } from './gradients.js';
export { constant, cosine, withWarmUp, type CosineOptions, type Schedule } from './schedules.js';
export { restoreTrainingState, saveTrainingState, trainingProgress, type TrainingParts } from './training-state.js';
