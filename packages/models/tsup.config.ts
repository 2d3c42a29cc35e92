import { defineConfig } from 'tsup';
export default defineConfig({ entry: { index: 'src/index.ts', dit: 'src/dit.ts', sit: 'src/sit.ts', mar: 'src/mar/index.ts', vae: 'src/vae.ts' }, format: ['esm'], dts: true, clean: true, sourcemap: true, target: 'es2022', platform: 'neutral' });
