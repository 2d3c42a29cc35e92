import { program } from './program.js';

await program().parseAsync();
// what was printed may not be out yet, where it goes into a pipe
await new Promise((resolve) => process.stdout.write('', resolve));
// Dawn keeps handles open: the work is done, so is the process
process.exit();
