import { defineConfig } from 'tsup';
export default defineConfig({ entry: ['src/index.ts', 'src/dit.ts', 'src/vae.ts'], format: ['esm'], dts: true, clean: true, sourcemap: true, target: 'es2022', platform: 'neutral' });
