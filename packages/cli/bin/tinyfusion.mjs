#!/usr/bin/env node
import { existsSync } from 'node:fs';

const main = new URL('../dist/main.js', import.meta.url);
if (!existsSync(main)) {
  console.error('tinyfusion is not built yet: run `npm run quickstart` or `npm test` once, or `pnpm build`');
  process.exit(1);
}
await import(main.href);
