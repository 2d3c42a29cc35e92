import { byMatrices, type SubgroupMatrixConfig } from './matrix-product.js';
import type { Job } from './product-code.js';
import { type ProductForm, isThin } from './product-form.js';
import { tiledBySubgroups } from './subgroup-product.js';
import { thin, thinBySubgroups } from './thin-product.js';
import { tiled } from './tiled-product.js';

/** Products that are alike in what is fast for them. */
export type ProductKind = 'few rows' | 'small' | 'large' | 'small, float16 weights' | 'large, float16 weights';

/** How products of a kind are computed on a device. */
export interface ProductChoice {
  products: ProductKind;
  form: ProductForm;
  /** What came of each form that was tried: its time, or why it is not used. */
  tried: Readonly<Record<string, string>>;
}

/** Tiles of 64 × 64 from which products are large: enough for every core of a GPU. */
const LARGE = 128;

/** What every device can run, and what others are compared with. */
export const portableForm = (kind: ProductKind): ProductForm => (kind === 'few rows' ? thin : tiled4);
const tiled4 = tiled(4, 4);

/** The forms that products of a device are computed in: the portable ones, until others have proved themselves. */
export class ProductForms {
  /** What was tried; `undefined` where nothing was. */
  choices: ProductChoice[] | undefined;

  /** The form for all jobs of a dispatch. */
  of(jobs: readonly Job[]): ProductForm {
    const kind = kindOf(jobs);
    const form = this.choices?.find(({ products }) => products === kind)?.form;
    return form !== undefined && jobs.every((job) => form.takes(job)) ? form : portableForm(kind);
  }
}

function kindOf(jobs: readonly Job[]): ProductKind {
  if (jobs.length === 1 && isThin(jobs[0]!)) return 'few rows';
  const tiles = jobs.reduce((sum, { m, n, batch }) => sum + Math.ceil(m / 64) * Math.ceil(n / 64) * batch, 0);
  const size = tiles < LARGE ? 'small' : 'large';
  return jobs.every(({ b }) => b.half === true) ? `${size}, float16 weights` : size;
}

type AdapterInfo = { subgroupMinSize?: number; subgroupMaxSize?: number; subgroupMatrixConfigs?: Iterable<SubgroupMatrixConfig> };

/** The forms that a device's features allow. Whether its driver gets them right is another matter. */
export function formsFor(device: GPUDevice): ProductForm[] {
  const forms = [thin, tiled4, tiled(8, 4), tiled(8, 8)];
  if (device.features.has('shader-f16')) forms.push(tiled(4, 4, { half: true }), tiled(8, 8, { half: true }));
  if (!device.features.has('subgroups')) return forms;
  forms.push(thinBySubgroups);
  const { subgroupMinSize = 0, subgroupMaxSize = 0, subgroupMatrixConfigs = [] } = (device as unknown as { adapterInfo?: AdapterInfo }).adapterInfo ?? {};
  if (subgroupMinSize >= 4) forms.push(tiledBySubgroups(subgroupMinSize));
  if (!device.features.has('chromium-experimental-subgroup-matrix') || subgroupMaxSize === 0) return forms;
  // drivers list what they prefer first
  const matrices = Array.from(subgroupMatrixConfigs, (config) => byMatrices(config, subgroupMaxSize)).filter((form) => form !== undefined);
  for (const half of [true, false]) {
    const first = matrices.find((form) => form.half === half);
    if (first !== undefined && (!half || device.features.has('shader-f16'))) forms.push(first);
  }
  return forms;
}
