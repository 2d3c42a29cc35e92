import '@tensorflow/tfjs';
import { loadTeacher } from '@tinyfusion/fashion-mnist';
import { useBackend } from '@tinyfusion/kernels';
import { loadDiT, saveModel } from '@tinyfusion/models';
import { pruneBlocks } from '@tinyfusion/pruning';

export const dynamic = 'force-dynamic';

/** `/api/prune?keep=1,3,5`: the embedded teacher with these layers alone, as a safetensors file. */
export async function GET(request: Request): Promise<Response> {
  const kept = (new URL(request.url).searchParams.get('keep') ?? '').split(',').map(Number);
  await useBackend({ prefer: 'wasm' });
  const dit = await loadDiT(await loadTeacher());
  try {
    pruneBlocks(dit.blocks, kept);
    return new Response(await saveModel(dit), { headers: { 'content-type': 'application/octet-stream', 'x-layers': String(dit.blocks.length) } });
  } catch (error) {
    return Response.json({ error: String(error) }, { status: 400 });
  } finally {
    dit.dispose();
  }
}
