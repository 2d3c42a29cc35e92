import { type StateDict, parseSafetensors } from '@tinyfusion/weights';
import { loadAsset } from './assets.js';

/** The embedded teacher: a 12-layer class-conditional DiT on 8×8×4 latents; see the package's MODEL_CARD.md. */
export const loadTeacher = (): Promise<StateDict> => load('teacher.safetensors');

/** The autoencoder of its latents. */
export const loadAutoencoder = (): Promise<StateDict> => load('autoencoder.safetensors');

/** The classifier whose features measure its samples. */
export const loadFeatureNetwork = (): Promise<StateDict> => load('features.safetensors');

async function load(name: 'teacher.safetensors' | 'autoencoder.safetensors' | 'features.safetensors'): Promise<StateDict> {
  return parseSafetensors(await loadAsset(name), name);
}
