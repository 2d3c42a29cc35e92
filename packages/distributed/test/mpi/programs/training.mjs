// a tiny DiT trained by all ranks; rank 0 writes the losses, every rank a hash of the model
import { defaultCollective } from '@tinyfusion/distributed';
import { run } from './train-tiny.mjs';

const collective = await defaultCollective();
console.log(JSON.stringify(await run({ collective, data: { steps: Number(process.argv[2]) } })));
await collective.close();
