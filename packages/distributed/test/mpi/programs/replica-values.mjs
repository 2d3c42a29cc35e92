// what a thread of runReplicas gets, and how it may fail
export async function run({ rank, size, collective, data, signal, onProgress }) {
  if (data?.fails === rank) {
    if (data.how === 'throws') throw new Error('out of luck');
    if (data.how === 'rejects') void Promise.reject(new Error('out of luck'));
    if (data.how === 'exits') process.exit(3);
  }
  if (data?.leaves !== undefined) {
    if (data.leaves.includes(rank)) return 'left';
    if (data.pause) await new Promise((resolve) => setTimeout(resolve, data.pause));
    if (data.calls) await collective[data.calls](Float32Array.of(1), 'sum');
    return 'stayed';
  }
  if (data?.prints !== undefined) {
    for (let i = 0; i < data.prints; i++) console.log(`line ${i}`);
    return rank;
  }
  if (data?.tidies === rank) {
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    await new Promise((resolve) => setTimeout(resolve, 200));
    console.log('in order');
    throw new Error('stopped');
  }
  if (data?.waits === true) {
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    throw new Error('stopped');
  }
  if (data?.hangs === true) for (;;);
  const values = Float32Array.from({ length: 1_000_000 }, (_, i) => rank + (i % 7));
  for (let i = 0; i < 20; i++) {
    values.fill(rank + i);
    await collective.allReduce(values, 'sum');
    onProgress({ task: 'add', step: i + 1, total: 20, unit: 'step' });
  }
  const numbers = rank === 0 ? Float64Array.of(0.1, 0.2) : new Float64Array(2);
  await collective.broadcast(numbers);
  return { rank, size, sum: values[0], last: values.at(-1), numbers: [...numbers] };
}
