import { call } from '../client';
import { state, update } from '../state';
import { work } from './work';

/** Hands the shallow model over as a file. */
export async function downloadStudent(): Promise<void> {
  await work('download', 'Writing the file', async ({ signal }) => {
    const { choice, precision, model } = state;
    const { bytes, record } = await call('download', { choice, dtype: precision }, { signal });
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' }));
    link.download = `${model!.name.replace(/\.[a-z]+$/, '').replaceAll(/[^\w-]+/g, '-')}-${choice.kept.length}-blocks.safetensors`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    update({ record });
    return `${link.download} is on its way to your downloads`;
  });
}
