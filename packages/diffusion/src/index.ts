export { betas, type BetaSchedule } from './betas.js';
export { bitsPerDimension, priorBits, type BoundStep } from './bits-per-dimension.js';
export { ddim, ddimInversion, type DdimInversionOptions, type DdimOptions } from './ddim.js';
export { ddpm, type DdpmOptions } from './ddpm.js';
export { GaussianDiffusion, type Denoiser, type GaussianDiffusionOptions, type GaussianTables, type PredictedMoments, type Timesteps, type TrainingTerms } from './gaussian.js';
export { classifierFreeGuidance, type GuidanceOptions } from './guidance.js';
export { discretisedLogLikelihood, meanFlat, normalKL } from './likelihood.js';
export { spacedTimesteps } from './respacing.js';
export { sampleToEnd, type NoiseSource, type Sampling, type SamplingOptions, type SamplingStep } from './sampling.js';
