import { defineConfig } from 'vite';

// top-level await is what our programs begin with; workers load their parts when they need them
export default defineConfig({ base: './', build: { target: 'es2022', chunkSizeWarningLimit: 4000 }, worker: { format: 'es' } });
