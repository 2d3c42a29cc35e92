import { CheckpointError, type LongTaskOptions, type ProgressEvent } from '@tinyfusion/core';
import { type TeacherFamily, loadTeacher } from '@tinyfusion/fashion-mnist';
import { AutoencoderKL, DiT, loadModel, loadReference, loadReferenceAutoencoder, loadTinyAutoencoder, recognise } from '@tinyfusion/models';
import { MODEL_KEY } from '@tinyfusion/nn';
import { readPruneRecord } from '@tinyfusion/pruning';
import type { Prunable } from '@tinyfusion/recipes';
import { type StateDict, blobSource, parseSafetensors, readCheckpoint, stateDictHash, weightsOf } from '@tinyfusion/weights';
import preparedStudent from '../../assets/student.safetensors?url';
import { keep, recall } from '../keep';
import type { Kept, ModelInfo, Opened } from '../protocol';
import type { KeptLearning } from './learn';
import type { KeptRecovery } from './recover';
import type { Context } from './server';
import { type Autoencoder, type Loaded, session } from './session';
import { type KeptStudent, openStudent } from './student';

/** Bytes of a file up to which it is kept for the next visit. */
const KEPT_BYTES = 256 * 2 ** 20;
/** Bytes from which on weights are held in half precision. */
const LARGE_BYTES = 512 * 2 ** 20;

/** The teacher of the last visit: an embedded one, or a file with the name of its preset, where that had to be asked for. */
type KeptTeacher = { readonly family: TeacherFamily } | KeptFile;

interface KeptFile {
  readonly file: File;
  readonly preset: string | undefined;
}

/** A teacher that comes with the page. */
export async function openEmbedded({ family }: { family: TeacherFamily }, { signal, emit }: Context<ProgressEvent>): Promise<ModelInfo> {
  const task = { signal, onProgress: emit };
  const state = await loadTeacher(family);
  const sha256 = await stateDictHash(state, task);
  session.teacher = { model: (await loadModel(state, task)) as Prunable, name: `fashion-mnist ${family === 'DiT' ? '' : `${family} `}teacher`, sha256, record: undefined, embedded: true };
  await keep('teacher', { family } satisfies KeptTeacher);
  return session.info();
}

/** The teacher of the last visit, or the embedded one. */
export async function openLast(_: object, context: Context<ProgressEvent>): Promise<ModelInfo> {
  const last = await recall<KeptTeacher>('teacher');
  if (last !== undefined && 'family' in last) return openEmbedded(last, context);
  if (last !== undefined) {
    try {
      const opened = await openFile({ file: last.file, ...(last.preset === undefined ? {} : { preset: last.preset }) }, context);
      if (opened.kind === 'teacher') return opened.model;
    } catch {
      // the file of another version of this page; the embedded teacher always opens
    }
  }
  return openEmbedded({ family: 'DiT' }, context);
}

/**
 * Opens a dropped file, whatever it is: a student of the present teacher, another teacher, an autoencoder.
 * @param options `preset`: which model it is, where its shapes fit several
 * @throws CheckpointError where it is nothing of these
 */
export async function openFile({ file, preset }: { file: File; preset?: string }, { signal, emit }: Context<ProgressEvent>): Promise<Opened> {
  const task = { signal, onProgress: emit };
  const checkpoint = await readCheckpoint(blobSource(file, file.name));
  const state: StateDict = { ...weightsOf(checkpoint), metadata: checkpoint.metadata };
  if (state.metadata.has(MODEL_KEY)) return openOurs(file, state, task);
  const found = recognise(state);
  if (found === undefined && [...state.tensors.keys()].some((name) => /^(encoder|decoder)\.layers\.\d/.test(name))) return autoencoder(file.name, await loadTinyAutoencoder(state));
  if (found === undefined) throw new CheckpointError(`${file.name} holds no DiT, SiT, MAR or autoencoder; its tensors are ${[...state.tensors.keys()].slice(0, 4).join(', ')} …`);
  if (found.presets.length === 0 && found.summary.startsWith('an autoencoder')) return autoencoder(file.name, await loadReferenceAutoencoder(state));
  if (found.presets.length === 0) throw new CheckpointError(`${file.name} looks like ${found.summary}, which is none of the published models; save it with saveModel of @tinyfusion/models, and the file says itself what it is`);
  const name = preset ?? (found.presets.length === 1 ? found.presets[0]! : undefined);
  if (name === undefined) return { kind: 'ask', presets: found.presets, summary: found.summary };
  const sha256 = await stateDictHash(state, task);
  const model = await loadReference(name, state, { ...task, ...(file.size > LARGE_BYTES ? { dtype: 'F16' } : {}) });
  return teacher({ model, name: file.name, sha256, record: undefined, embedded: false }, file, name);
}

async function openOurs(file: File, state: StateDict, task: LongTaskOptions): Promise<Opened> {
  const record = readPruneRecord(state.metadata);
  if (record !== undefined && session.hasTeacher && record.teacher.sha256 === session.teacher.sha256) {
    session.recovered = await openStudent(state);
    await keep(`student of ${record.teacher.sha256}`, { file: new Uint8Array(await file.arrayBuffer()) } satisfies KeptStudent);
    return { kind: 'student', student: session.studentInfo()! };
  }
  const sha256 = await stateDictHash(state, task);
  const model = await loadModel(state, task);
  if (model instanceof AutoencoderKL) return autoencoder(file.name, model);
  return teacher({ model, name: file.name, sha256, record, embedded: false }, file, undefined);
}

async function teacher(loaded: Loaded, file: File, preset: string | undefined): Promise<Opened> {
  session.teacher = loaded;
  if (file.size <= KEPT_BYTES) await keep('teacher', { file, preset } satisfies KeptTeacher);
  return { kind: 'teacher', model: await session.info() };
}

async function autoencoder(name: string, model: Autoencoder): Promise<Opened> {
  const { inChannels } = session.teacher.model.config;
  if (model.config.latentChannels !== inChannels) {
    model.dispose();
    throw new CheckpointError(`${name} is an autoencoder of ${model.config.latentChannels} latent channels; ${session.teacher.name} has ${inChannels}`);
  }
  session.useAutoencoder(model);
  return { kind: 'autoencoder', model: await session.info(), name };
}

/** The student that comes with the page, if it was cut from the present teacher. */
async function prepared(): Promise<void> {
  const response = await fetch(preparedStudent).catch(() => undefined);
  if (response?.ok !== true) return; // the page works without
  const own = await openStudent(await parseSafetensors(new Uint8Array(await response.arrayBuffer())));
  if (own.record.teacher.sha256 === session.teacher.sha256) session.recovered = own;
  else own.model.dispose();
}

/** Opens the student that earlier visits left for the present teacher, and says what they left. */
export async function restore(): Promise<Kept> {
  const { embedded, model, sha256 } = session.teacher;
  const student = await recall<KeptStudent>(`student of ${sha256}`);
  try {
    if (student !== undefined) session.recovered = await openStudent(await parseSafetensors(student.file));
  } catch {
    // the file of another version of this page, or a damaged one
  }
  if (session.recovered === undefined && embedded && model.constructor === DiT) await prepared();
  return left();
}

/** The student at hand, and the runs that go on with the present teacher. */
export async function left(): Promise<Kept> {
  const { sha256 } = session.teacher;
  const [learn, recover] = await Promise.all([recall<KeptLearning>(`learn of ${sha256}`), recall<KeptRecovery>(`recover of ${sha256}`)]);
  return {
    student: session.studentInfo(),
    learn: learn && { step: learn.step, settings: learn.settings },
    recover: recover && { step: recover.step, settings: recover.settings, choice: recover.choice },
  };
}
