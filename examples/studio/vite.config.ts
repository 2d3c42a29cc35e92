import { defaultClientConditions, defineConfig } from 'vite';

// relative paths, so that the page may lie in any folder of a site; packages are taken from their sources
export default defineConfig({
  base: './',
  resolve: { conditions: ['@tinyfusion/source', ...defaultClientConditions] },
  build: { target: 'es2022', chunkSizeWarningLimit: 2000 },
  worker: { format: 'es' },
  // what the worker imports is prepared before it starts: a worker does not reload
  optimizeDeps: { entries: ['index.html', 'src/worker/worker.ts'] },
});
