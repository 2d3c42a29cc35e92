export { loadAutoencoderKL, loadDiT, loadModel, saveModel, withDepths, type StoredModel } from './checkpoint.js';
export { fromDiffusersNames } from './diffusers.js';
export { DiT, DiTBlock, FinalLayer, LabelEmbedder, PatchEmbed, TimestepEmbedder, type DiTConfig, type DiTForwardOptions } from './dit.js';
export { positionEmbedding, timestepEmbedding } from './embeddings.js';
export * from './mar/index.js';
export { createModel, ditConfig, marConfig, presets, type ChangesOf, type ModelOf } from './presets.js';
export { SiT } from './sit.js';
export { Attention, Mlp, ViTBlock, type MlpOptions, type ViTBlockOptions } from './transformer.js';
export { AutoencoderKL, posteriorKL, samplePosterior, type AutoencoderConfig } from './vae.js';
