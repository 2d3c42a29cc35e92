// Writes the tables of README.md and docs/results/index.md from the JSON of studies and benches, between the marks
// `<!-- table NAME -->` and `<!-- /table -->`. The site is built with the second one written anew.
//   node scripts/tables.mjs            writes both
//   node scripts/tables.mjs --check    fails where README.md has other numbers
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';

const check = process.argv.includes('--check');
const at = (path) => new URL(`../${path}`, import.meta.url);
const json = (name) => JSON.parse(readFileSync(at(`docs/results/${name}.json`), 'utf8'));
const results = readdirSync(at('docs/results')).filter((name) => name.endsWith('.json') && !name.endsWith('.curve.json')).map((name) => name.slice(0, -5)).toSorted();

const tables = {
  /** Four choices of half the layers, and the teacher. */
  methods: () => {
    const { rows, date, machine } = json('methods');
    const columns = [['calibrationLoss', 'loss after the cut', 3], ['fid', 'FID ↓', 2], ['inceptionScore', 'IS ↑', 2], ['precision', 'precision ↑', 3], ['recall', 'recall ↑', 3]];
    const names = [['teacher, all layers', 'teacher, 12 layers'], ['learned', 'learned'], ['ShortGPT', 'ShortGPT'], ['oracle', 'oracle'], ['random', 'random']];
    const lines = names.map(([choice, name]) => {
      const own = rows.filter((row) => row.choice === choice);
      const kept = choice === 'oracle' ? ` (${own[0].kept.join(' ')})` : '';
      return [`${name}${kept}`, ...columns.map(([key, , digits]) => overSeeds(own.map((row) => row[key]), digits))];
    });
    return [table(['choice', ...columns.map(([, title]) => title)], lines), `${date}, ${machine}.`];
  },
  /** Everything measured against a peer in one run. */
  benches: () => benches(() => true),
  /** What a reader asks first. */
  speed: () => benches(({ name, peer }) => !peer.startsWith('jax') && ['training step, width 384', 'forward, width 384', 'DiT-S/2 forward, batch 8', 'D14 against D28, width 1152', 'study of all', 'time to first image', 'peak tensor memory', 'training step: dispatches', 'compiled forward pass: submits'].some((start) => name.startsWith(start)) && peer !== 'the same, not compiled'),
  /** Every study there is, by its page's title. */
  studies: () => [
    table(['study', 'measured', 'on', 'command'], results.map((name) => [name, json(name)]).filter(([, { study }]) => study !== undefined).map(([name, { date, machine, command }]) => {
      const title = /^# (.*)$/m.exec(readFileSync(at(`docs/results/${name}.md`), 'utf8'))[1];
      return [`[${title}](${name}.md)`, date, machine, `\`${command.replaceAll(/ --out \S+/g, '')}\``];
    })),
  ],
};

let stale = 0;
for (const path of ['README.md', ...(check ? [] : ['docs/results/index.md'])]) {
  const text = readFileSync(at(path), 'utf8');
  const written = text.replaceAll(/(<!-- table (\w+) -->\n)[\s\S]*?(<!-- \/table -->)/g, (_, open, name, close) => {
    if (!Object.hasOwn(tables, name)) throw new Error(`${path} has a table ${name}, expected one of ${Object.keys(tables).join(', ')}`);
    return `${open}\n${tables[name]().join('\n\n')}\n\n${close}`;
  });
  if (written === text) continue;
  stale++;
  if (check) console.error(`${path} does not have the numbers of docs/results; run: node scripts/tables.mjs`);
  else writeFileSync(at(path), written);
}
if (check && stale > 0) process.exitCode = 1;

/** A table of the rows that are wanted, and where they were measured. */
function benches(wanted) {
  const rows = results.filter((name) => name.startsWith('bench')).flatMap(json).filter((row) => typeof row.ratio === 'number' && wanted(row));
  return [table(['what', 'against', 'times as fast', 'ours', 'theirs', 'on'], rows.map(({ name, peer, ratio, ours, theirs, unit = '', backend = '' }) => [name, peer, ratio.toFixed(2), `${ours} ${unit}`, `${theirs} ${unit}`, backend])), `Medians, in turns, on ${[...new Set(rows.map(({ machine, date }) => [date, machine].filter(Boolean).join(', ')))].join('; ')}.`];
}

/** Mean, and deviation where there are several. */
function overSeeds(values, digits) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  if (values.length === 1) return mean.toFixed(digits);
  return `${mean.toFixed(digits)} ± ${Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (values.length - 1)).toFixed(digits)}`;
}

function table(head, rows) {
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
