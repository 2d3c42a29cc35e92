// tfjs fetches its WASM files from where setWasmPaths says: here from /wasm/
import { cpSync, mkdirSync, readdirSync } from 'node:fs';

const from = 'node_modules/@tensorflow/tfjs-backend-wasm/dist';
mkdirSync('public/wasm', { recursive: true });
for (const file of readdirSync(from)) if (file.endsWith('.wasm')) cpSync(`${from}/${file}`, `public/wasm/${file}`);
