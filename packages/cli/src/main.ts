import { program } from './program.js';

await program().parseAsync();
// Dawn keeps handles open: the work is done, so is the process
process.exit();
