export { loadAutoencoderKL, loadDiT } from './checkpoint.js';
export { DiT, DiTBlock, FinalLayer, LabelEmbedder, PatchEmbed, TimestepEmbedder, type DiTConfig, type DiTForwardOptions } from './dit.js';
export { ditConfig, ditPresets } from './dit.presets.js';
export { positionEmbedding, timestepEmbedding } from './embeddings.js';
export { Attention, Mlp } from './transformer.js';
export { AutoencoderKL, posteriorKL, samplePosterior, type AutoencoderConfig } from './vae.js';
