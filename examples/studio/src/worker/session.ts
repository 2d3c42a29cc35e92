import { CheckpointError, type LongTaskOptions } from '@tinyfusion/core';
import { firstImages } from '@tinyfusion/data';
import { type FeatureNetwork, classifierFeatures, loadConvClassifier } from '@tinyfusion/eval';
import { fashionMnistClassNames, loadAutoencoder, loadFashionMnist, loadFeatureNetwork } from '@tinyfusion/fashion-mnist';
import { type AutoencoderKL, MAR, SiT, type TinyAutoencoder, loadAutoencoderKL } from '@tinyfusion/models';
import { type PruneRecord, describeRecord } from '@tinyfusion/pruning';
import { type LatentDataset, type Prunable, depthOf, encodeDataset, stacksOf } from '@tinyfusion/recipes';
import type { BlockHook } from '@tinyfusion/nn';
import type { Choice, ModelInfo, StudentInfo } from '../protocol';
import { keeping } from './stacks';

/** A model with its provenance. */
export interface Loaded {
  readonly model: Prunable;
  readonly name: string;
  readonly sha256: string;
  readonly record: PruneRecord | undefined;
  /** Whether it came with the page. */
  readonly embedded: boolean;
}

/** A shallow model whose weights are its own. */
export interface Recovered {
  readonly model: Prunable;
  readonly choice: Choice;
  readonly steps: number | undefined;
  readonly record: PruneRecord;
}

export type Autoencoder = AutoencoderKL | TinyAutoencoder;

/** Images that are encoded to learn from. */
const IMAGES = 2000;

/** What is loaded when it is first asked for, and asked for again where that failed. */
function once<T>(load: () => Promise<T>): () => Promise<T> {
  let loaded: Promise<T> | undefined;
  return () => {
    loaded ??= load().catch((error: unknown) => {
      loaded = undefined;
      throw error;
    });
    return loaded;
  };
}

/** What the worker holds: one teacher, at most one recovered student, autoencoders, and data that are loaded when first needed. */
class Session {
  #teacher: Loaded | undefined;
  #recovered: Recovered | undefined;
  /** One that was dropped in, for the teacher at hand. */
  #autoencoder: Autoencoder | undefined;
  #data: LatentDataset | undefined;
  readonly #embedded = once(async () => loadAutoencoderKL(await loadAutoencoder()));
  /** The images to learn from. */
  readonly images = once(async () => firstImages(await loadFashionMnist('train'), IMAGES));
  readonly network = once(async (): Promise<FeatureNetwork> => classifierFeatures(await loadConvClassifier(await loadFeatureNetwork()), 'the Fashion-MNIST classifier'));

  get teacher(): Loaded {
    if (this.#teacher === undefined) throw new CheckpointError('no model is loaded; load the embedded teacher, or drop in a file');
    return this.#teacher;
  }

  get hasTeacher(): boolean {
    return this.#teacher !== undefined;
  }

  set teacher(loaded: Loaded) {
    this.#teacher?.model.dispose();
    this.recovered = undefined;
    this.#teacher = loaded;
    // latents of as many channels need not be of the same kind: the embedded teachers have an autoencoder of theirs
    if (this.fitsData || this.#autoencoder?.config.latentChannels !== loaded.model.config.inChannels) this.useAutoencoder();
  }

  get recovered(): Recovered | undefined {
    return this.#recovered;
  }

  set recovered(recovered: Recovered | undefined) {
    if (this.#recovered?.model !== recovered?.model) this.#recovered?.model.dispose();
    this.#recovered = recovered;
  }

  /** What runs for a choice of blocks: the recovered student of that choice, or the teacher without the other blocks. */
  student(kept: readonly number[]): { model: Prunable; hook: BlockHook | undefined } {
    if (String(this.#recovered?.choice.kept) === String(kept)) return { model: this.#recovered!.model, hook: undefined };
    return { model: this.teacher.model, hook: keeping(this.teacher.model, kept) };
  }

  /** The autoencoder that fits the teacher's latents, if any. */
  async autoencoder(): Promise<Autoencoder | undefined> {
    return this.#autoencoder ?? (this.fitsData ? this.#embedded() : undefined);
  }

  useAutoencoder(model?: Autoencoder): void {
    this.#autoencoder?.dispose();
    this.#autoencoder = model;
  }

  /** Whether the teacher is of the embedded data's latents and classes. */
  get fitsData(): boolean {
    const { inputSize, inChannels, numClasses } = this.teacher.model.config;
    return inputSize === 8 && inChannels === 4 && numClasses === 10;
  }

  /** Latents to learn from, encoded once. */
  async data(options: LongTaskOptions): Promise<LatentDataset> {
    this.#data ??= await encodeDataset(await this.images(), await this.embeddedAutoencoder(), options);
    return this.#data;
  }

  /** The autoencoder of the embedded data. @throws CheckpointError where the teacher is not of them */
  async embeddedAutoencoder(): Promise<AutoencoderKL> {
    if (!this.fitsData) throw new CheckpointError(`${this.teacher.name} has other latents or classes than the images in this page: looking, cutting and saving work, learning and measuring need the embedded teacher or one like it`);
    return this.#embedded();
  }

  async info(): Promise<ModelInfo> {
    const { model, name, sha256, record, embedded } = this.teacher;
    return {
      name,
      family: model instanceof MAR ? 'MAR' : model instanceof SiT ? 'SiT' : 'DiT',
      depth: depthOf(model),
      stacks: stacksOf(model).map(({ depth }) => depth),
      parameters: model.parameterCount(),
      numClasses: model.config.numClasses,
      classNames: this.fitsData ? fashionMnistClassNames : [],
      sha256,
      hasData: this.fitsData,
      pictures: (await this.autoencoder()) === undefined ? 'latents' : 'autoencoder',
      embedded,
      history: record === undefined ? undefined : describeRecord(record),
    };
  }

  studentInfo(): StudentInfo | undefined {
    if (this.#recovered === undefined) return undefined;
    const { model, choice, steps, record } = this.#recovered;
    return { choice, steps, parameters: model.parameterCount(), described: describeRecord(record) };
  }
}

export const session = new Session();
