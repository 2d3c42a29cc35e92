// what every rank gets of each call, one line of JSON a rank; with an argument the library to use
import { defaultCollective, mpiCollective } from '@tinyfusion/distributed';

const collective = process.argv[2] === undefined ? await defaultCollective() : await mpiCollective({ library: process.argv[2] });
const { rank, size } = collective;
const results = { rank, size };
for (const how of ['sum', 'mean', 'max']) {
  const [float, double] = [Float32Array.from({ length: 100_000 }, (_, i) => rank + (i % 7)), Float64Array.of(0.1 + rank, -1 - rank)];
  await Promise.all([collective.allReduce(float, how), collective.allReduce(double, how)]);
  results[how] = { float: [...float.subarray(0, 8)], last: float.at(-1), double: [...double] };
}
const [float, double] = [Float32Array, Float64Array].map((type) => type.of(rank === 0 ? Number.NaN : 1, rank === size - 1 ? Number.NaN : 2, rank));
await Promise.all([collective.allReduce(float, 'max'), collective.allReduce(double, 'max')]);
results.lacking = [float, double].map((values) => [...values].map(String));
const bytes = Uint8Array.from({ length: 1000 }, (_, i) => (rank === 0 ? i : 255));
const numbers = rank === 0 ? Float32Array.of(1.5, 2.5) : new Float32Array(2);
await Promise.all([collective.broadcast(bytes), collective.broadcast(numbers)]);
results.bytes = [...bytes.subarray(254, 258)];
results.numbers = [...numbers];

// the event loop goes on while a rank waits for a late one
let ticks = 0;
const timer = setInterval(() => (ticks += 1), 5);
if (rank === size - 1) await new Promise((resolve) => setTimeout(resolve, 300));
const start = performance.now();
await collective.barrier();
clearInterval(timer);
results.waited = performance.now() - start;
results.ticks = ticks;
console.log(JSON.stringify(results));
await collective.close();
