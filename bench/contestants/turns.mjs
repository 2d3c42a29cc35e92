// How contestants in JavaScript take turns.
import { createInterface } from 'node:readline';

/**
 * Prepares, and then runs once for each line that comes in. Answers are lines of JSON on stdout: `{"ready":true}`, then
 * `{"value":…,"cpu":…,"check":…}` with the milliseconds, or what the run returns as `value`, and processor time.
 * @param prepare takes the work that the command line names, and gives the run, which may return `{ value, check }`: what is measured where that is not time, and a function
 * that gives a number on which all contestants of a contest must agree; it is called after the clock has stopped
 */
export async function takeTurns(prepare) {
  const run = await prepare(JSON.parse(process.argv[2]));
  // engines compile what is used often once more, better: short work is done for a while before it is measured
  const begun = performance.now();
  do await (await run())?.check?.();
  while (performance.now() - begun < WARM_UP);
  answer({ ready: true, cpu: cpuTime() });
  for await (const _ of createInterface({ input: process.stdin })) {
    const [from, cpu] = [performance.now(), cpuTime()];
    const { value, check } = (await run()) ?? {};
    const [wall, processor] = [performance.now() - from, cpuTime() - cpu];
    answer({ value: value ?? wall, cpu: processor, check: await check?.() });
  }
  process.exit(0);
}

/** Least time of warming up, ms. */
const WARM_UP = 1000;

/** Processor time of all threads since the process began, ms. */
function cpuTime() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

const answer = (object) => process.stdout.write(`\n${JSON.stringify(object)}\n`);
