/** The worker: everything that computes. Gradients are registered here once, as an application does. */
import '@tensorflow/tfjs-core'; // with its flags, which registering reads
import '@tensorflow/tfjs-core/dist/register_all_gradients';
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import plain from '@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm.wasm?url';
import simd from '@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm?url';
import threaded from '@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-threaded-simd.wasm?url';
import { type BackendChoice, type BackendName, useBackend } from '@tinyfusion/kernels';
import { activations } from './activations';
import { choose } from './choose';
import { blockCosts, lossOf, studentLoss } from './costs';
import { draw } from './draw';
import { learn } from './learn';
import { measure } from './measure';
import { left, openEmbedded, openFile, openLast, restore } from './open';
import { recover } from './recover';
import { serve } from './server';
import { download } from './student';

// tfjs looks for its WASM files beside the script; the bundler puts them elsewhere
const wasm = { 'tfjs-backend-wasm.wasm': plain, 'tfjs-backend-wasm-simd.wasm': simd, 'tfjs-backend-wasm-threaded-simd.wasm': threaded };

async function start({ prefer }: { prefer: BackendName | 'auto' }): Promise<BackendChoice> {
  setWasmPaths(Object.fromEntries(Object.entries(wasm).map(([name, url]) => [name, new URL(url, self.location.href).href])));
  return useBackend({ prefer });
}

const procedures = { start, openLast, openEmbedded, openFile, restore, left, draw, lossOf, studentLoss, blockCosts, choose, learn, activations, recover, measure, download };

/** What the page may call. */
export type Studio = typeof procedures;

serve(procedures);
