// rank 1 fails as the argument says while the others wait for it
import { defaultCollective } from '@tinyfusion/distributed';

const collective = await defaultCollective();
await collective.barrier();
if (collective.rank === 1) {
  const how = process.argv[2];
  if (how === 'throws') throw new Error('out of luck');
  if (how === 'rejects') void Promise.reject(new Error('out of luck'));
  if (how === 'exits') process.exit(7);
  if (how === 'is killed') process.kill(process.pid, 'SIGKILL');
  if (how === 'leaves') process.exit(0);
}
await collective.barrier();
await new Promise((resolve) => setTimeout(resolve, 1000));
await collective.barrier();
console.log('not reached');
await collective.close();
