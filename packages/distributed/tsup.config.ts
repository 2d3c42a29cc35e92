import { defineConfig } from 'tsup';
export default defineConfig({ entry: { index: 'src/index.ts', workers: 'src/workers.ts', 'worker-main': 'src/workers/worker-main.ts' }, format: ['esm'], dts: { entry: { index: 'src/index.ts', workers: 'src/workers.ts' } }, clean: true, sourcemap: true, target: 'es2022', platform: 'node' });
