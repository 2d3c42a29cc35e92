import { defineConfig } from 'tsup';
export default defineConfig({ entry: ['src/index.ts', 'src/main.ts', 'src/replica.ts'], format: ['esm'], dts: true, clean: true, sourcemap: true, target: 'es2022', platform: 'node' });
