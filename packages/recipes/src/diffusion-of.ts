import { GaussianDiffusion, type GaussianDiffusionOptions } from '@tinyfusion/diffusion';
import type { DiTConfig } from '@tinyfusion/models';

/** The process of a DiT: its variance is learned where the model has channels for it, else fixed and large. Upstream: `create_diffusion(learn_sigma=…)`. */
export function diffusionOf({ learnSigma }: Pick<DiTConfig, 'learnSigma'>, options: Omit<GaussianDiffusionOptions, 'variance'> = {}): GaussianDiffusion {
  return new GaussianDiffusion({ ...options, variance: learnSigma ? 'learned-range' : 'fixed-large' });
}
