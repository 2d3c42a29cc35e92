// What many ranks would do, on paper: measured constants of one machine, and a network's latency and bandwidth, which are given.
//   node packages/distributed/bench/cluster.mjs measured.jsonl [--latency-us 20] [--gbit 10]
// where measured.jsonl has the lines of scaling.mjs for one rank with two batch sizes, and for two ranks; of several runs of one
// kind the fastest counts.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { 'latency-us': { type: 'string', default: '20' }, gbit: { type: 'string', default: '10' } } });
const lines = readFileSync(positionals[0], 'utf8').split('\n').filter((line) => line.startsWith('{"ranks"')).map((line) => JSON.parse(line)).toSorted((a, b) => a.stepMs - b.stepMs);
const alone = lines.filter(({ ranks }) => ranks === 1).toSorted((a, b) => a.batchSize - b.batchSize);
const small = alone[0];
const large = alone.find(({ batchSize }) => batchSize === alone.at(-1).batchSize);
const two = lines.find(({ ranks }) => ranks === 2);
const bytes = 4 * large.parameters;

// a step alone: a part that every rank has, and one for each sample
const sampleMs = (large.stepMs - small.stepMs) / (large.batchSize - small.batchSize);
const fixedMs = Math.max(0, large.stepMs - large.batchSize * sampleMs);
// two ranks: what packing, unpacking and waiting take beside the sum itself
const [latencyMs, longMs] = [two.sumsMs[0][1], two.sumsMs.at(-1)[1]];
const localBytesPerMs = two.sumsMs.at(-1)[0] / (longMs - latencyMs);
const packingMs = Math.max(0, two.reductionMs - bytes / localBytesPerMs - latencyMs);
const [networkLatencyMs, networkBytesPerMs] = [Number(values['latency-us']) / 1000, (Number(values.gbit) / 8) * 1e6];
console.log(`measured: ${fixedMs.toFixed(1)} ms a step + ${sampleMs.toFixed(2)} ms a sample; ${(bytes / 1e6).toFixed(1)} MB of gradients, packed in ${packingMs.toFixed(1)} ms; between two ranks of a machine ${(1000 * latencyMs).toFixed(0)} µs and ${(localBytesPerMs / 1e6).toFixed(2)} GB/s`);
console.log(`given: a network of ${values['latency-us']} µs and ${values.gbit} Gbit/s`);

/** Rabenseifner's all-reduce: 2 log₂ p messages, and 2 (p − 1) / p of the bytes each way. */
const sumMs = (p) => (p === 1 ? 0 : 2 * Math.log2(p) * (networkLatencyMs + latencyMs) + ((2 * (p - 1)) / p) * (bytes / networkBytesPerMs) + packingMs);
const rows = [1, 2, 4, 8, 16, 32, 64].map((p) => {
  const strong = fixedMs + (sampleMs * large.batchSize) / p + sumMs(p);
  const weak = fixedMs + sampleMs * large.batchSize + sumMs(p);
  const one = fixedMs + sampleMs * large.batchSize;
  return { ranks: p, 'reduction ms': +sumMs(p).toFixed(1), [`speed-up, batch of ${large.batchSize}`]: +(one / strong).toFixed(1), 'of it reduction %': +((100 * sumMs(p)) / strong).toFixed(0), [`speed-up, ${large.batchSize} a rank`]: +((p * one) / weak).toFixed(1), 'of it reduction % ': +((100 * sumMs(p)) / weak).toFixed(0) };
});
console.table(rows);
