export { DiffusionHead, type DiffusionHeadConfig, type HeadDenoiser } from './diffusion-head.js';
export { drawMAR, drawMaskRatio, marDiffusion, marHeadInputs, marLoss, type MARDraws } from './loss.js';
export { MAR, type MARConfig, type MARForwardOptions } from './mar.js';
export { sampleMAR, type MARStep, type SampleMAROptions } from './sample.js';
export { TokenMask } from './token-mask.js';
