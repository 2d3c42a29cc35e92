import { type StateDict, parseSafetensors } from '@tinyfusion/weights';
import { type AssetName, loadAsset } from './assets.js';

/** Families of which there is an embedded teacher. */
export type TeacherFamily = 'DiT' | 'SiT' | 'MAR';

const teachers = { DiT: 'teacher.safetensors', SiT: 'sit.safetensors', MAR: 'mar.safetensors' } as const;

/**
 * An embedded teacher on 8×8×4 latents: a DiT or a SiT of 12 blocks, or a MAR of 6 + 6; see the package's MODEL_CARD.md.
 * @param family default `'DiT'`
 */
export const loadTeacher = (family: TeacherFamily = 'DiT'): Promise<StateDict> => load(teachers[family]);

/** The autoencoder of its latents. */
export const loadAutoencoder = (): Promise<StateDict> => load('autoencoder.safetensors');

/** The classifier whose features measure its samples. */
export const loadFeatureNetwork = (): Promise<StateDict> => load('features.safetensors');

async function load(name: AssetName): Promise<StateDict> {
  return parseSafetensors(await loadAsset(name), name);
}
