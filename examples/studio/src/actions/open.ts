import type { BackendChoice, BackendName } from '@tinyfusion/kernels';
import { call } from '../client';
import { failure } from '../failure';
import { keep, recall } from '../keep';
import type { ModelInfo, Opened } from '../protocol';
import { type State, groupSizes, state, update, watch } from '../state';
import { remember } from './choose';
import { drawPictures } from './draw';
import { work } from './work';

/** What of the page outlives it, for one teacher. */
const lasting = ['choice', 'tried', 'costs', 'draw', 'tab', 'learn', 'learnLoss', 'moments', 'recover', 'recoverLoss', 'measuring', 'measured', 'precision'] as const satisfies readonly (keyof State)[];
type Lasting = Pick<State, (typeof lasting)[number]> & { readonly backend: string | undefined };

/** Parameters up to which a model that was opened draws by itself. */
const QUICK = 5e7;

/** Starts the worker, and opens what was open before, or the embedded teacher. */
export async function start(): Promise<void> {
  const asked = new URLSearchParams(location.search).get('backend');
  const prefer = asked === 'webgpu' || asked === 'wasm' || asked === 'cpu' ? asked : 'auto';
  await work('start', 'Opening the teacher', async ({ progress }) => {
    update({ backend: await computing(prefer) });
    await show(await call('openLast', {}, { onEvent: progress }));
    return 'The teacher is loaded';
  });
  if (state.model !== undefined && state.model.parameters <= QUICK) void drawPictures();
  let saving: ReturnType<typeof setTimeout> | undefined;
  let saved = state;
  watch((now) => {
    if (lasting.every((key) => now[key] === saved[key])) return;
    saved = now;
    // while work moves a plot with every step, too
    saving ??= setTimeout(() => {
      saving = undefined;
      void save();
    }, 400);
  });
}

/** Starts what is asked for, or else what there is, and says so. */
async function computing(prefer: BackendName | 'auto'): Promise<BackendChoice> {
  try {
    return await call('start', { prefer });
  } catch (error) {
    if (prefer === 'auto') throw error;
    const choice = await call('start', { prefer: 'auto' });
    update(failure(error));
    return choice;
  }
}

async function save(): Promise<void> {
  if (state.model === undefined) return;
  const values = Object.fromEntries(lasting.map((key) => [key, state[key]])) as Pick<State, (typeof lasting)[number]>;
  await keep(`page of ${state.model.sha256}`, { ...values, backend: state.backend?.name } satisfies Lasting);
}

/** Shows a teacher, with what earlier visits left for it. */
async function show(model: ModelInfo): Promise<void> {
  const { student, learn, recover } = await call('restore', {});
  const page = await recall<Lasting>(`page of ${model.sha256}`);
  const all = Array.from({ length: model.depth }, (_, i) => i);
  const first = model.numClasses === 10 ? Array.from({ length: 10 }, (_, i) => i) : [Math.min(207, model.numClasses - 1)];
  const solver = model.family === 'MAR' ? 'mar' : model.family === 'SiT' ? 'heun' : 'dpm';
  const choice = student?.choice ?? { kept: all, criterion: 'hand' };
  const fresh = {
    choice,
    tried: student === undefined ? [] : [{ choice, loss: undefined }],
    costs: undefined,
    draw: { ...state.draw, labels: first, solver } as const,
    learn: { ...state.learn, group: groupSizes(model).find((size) => size === state.learn.group) ?? 2 },
    learnLoss: [],
    moments: [],
    recoverLoss: [],
    measured: [],
  };
  const { backend, ...kept } = page ?? { ...fresh, backend: undefined };
  // times are those of what computed then
  const costs = backend === state.backend?.name ? kept.costs : undefined;
  update({ ...fresh, ...kept, costs, model, student, asking: undefined, studentLoss: undefined, left: { learn, recover }, loss: undefined, activations: undefined, histogramOf: undefined, record: undefined, pictures: {}, shown: { draw: undefined, student: '' } });
}

/** Opens a file that was dropped or chosen, and says what it was. */
export async function openFile(file: File, preset?: string): Promise<void> {
  update({ asking: undefined });
  let opened: Opened | undefined;
  const well = await work('open', `Opening ${file.name}`, async ({ signal, progress }) => {
    opened = await call('openFile', { file, ...(preset === undefined ? {} : { preset }) }, { signal, onEvent: progress });
    if (opened.kind === 'teacher') await show(opened.model);
    else if (opened.kind === 'student') {
      const { student } = opened;
      update({ student, studentLoss: undefined, choice: student.choice, loss: undefined, activations: undefined, record: undefined });
      remember(student.choice);
    } else if (opened.kind === 'autoencoder') update({ model: opened.model });
    else update({ asking: { file, presets: opened.presets, summary: opened.summary } });
    return opened.kind === 'student' ? `${file.name} is a student of this teacher: ${opened.student.described}` : opened.kind === 'ask' ? 'Which model is it?' : `${file.name} is loaded`;
  });
  if (well && opened !== undefined && opened.kind !== 'ask' && state.model!.parameters <= QUICK) void drawPictures(opened.kind === 'student' ? ['student'] : undefined);
}

/** Opens a teacher that comes with the page. */
export async function openEmbedded(family: ModelInfo['family']): Promise<void> {
  const well = await work('open', `Opening the embedded ${family}`, async ({ signal, progress }) => {
    await show(await call('openEmbedded', { family }, { signal, onEvent: progress }));
    return `The embedded ${family} is loaded`;
  });
  if (well) void drawPictures();
}
