import { type DecisionPoint, type Series, decisionPlot, escape, lineChart, chartCss } from './svg.js';

/** A row of the report's table. */
export interface ReportRow {
  name: string;
  layers: number;
  /** Trainable values. */
  parameters: number;
  /** Measured on the machine that wrote the report. */
  imagesPerSecond: number;
  fid: number;
  inceptionScore: number;
  precision: number;
  recall: number;
  /** Share of guided samples whose class the feature network recognises, in [0, 1]. */
  agreement: number;
  /** Kept blocks of the teacher; absent for the teacher. */
  kept?: readonly number[];
}

/** Samples of several models from the same noise, one model a row. */
export interface SampleStrip {
  name: string;
  /** PNG. */
  png: Uint8Array;
}

/** Everything the report shows. */
export interface Report {
  title: string;
  /** One paragraph: what was done, how long it took. */
  summary: string;
  command: string;
  seed: number;
  backend: string;
  machine: string;
  date: string;
  /** Steps of mask learning and of recovery, samples evaluated, guidance and so on, as shown. */
  settings: Readonly<Record<string, string | number>>;
  depth: number;
  rows: readonly ReportRow[];
  strips: readonly SampleStrip[];
  decisions: readonly DecisionPoint[];
  maskLoss: readonly (readonly [number, number])[];
  recovery: readonly { name: string; points: readonly (readonly [number, number])[] }[];
  /** Remarks on how to read the numbers. */
  notes: readonly string[];
}

/** The report as one HTML file without links to anything outside it. */
export function renderReport(report: Report): string {
  const { title, summary, command, seed, backend, machine, date, settings, depth, rows, strips, decisions, maskLoss, recovery, notes } = report;
  const curves: Series[] = recovery.map(({ name, points }, i) => ({ name, style: `s${i}`, points }));
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}</title>
<style>${css}</style>
</head>
<body>
<main>
<h1>${escape(title)}</h1>
<p class="lead">${escape(summary)}</p>
<section>
<h2>Samples from the same noise</h2>
${strips.map(({ name, png }) => `<figure><figcaption>${escape(name)}</figcaption><img alt="Samples of ${escape(name)}" src="data:image/png;base64,${base64(png)}"></figure>`).join('\n')}
</section>
<section>
<h2>Numbers</h2>
<div class="scroll"><table>
<thead><tr><th>model</th><th>layers</th><th>parameters</th><th>images/s</th><th>FID ↓</th><th>IS ↑</th><th>precision ↑</th><th>recall ↑</th><th>class agreement ↑</th><th>kept</th></tr></thead>
<tbody>
${rows.map(row).join('\n')}
</tbody>
</table></div>
<ul class="notes">${notes.map((n) => `<li>${escape(n)}</li>`).join('')}</ul>
</section>
<section>
<h2>Which layers stay</h2>
<p>Kept layers over the steps of mask learning; the more confident a group is of its choice, the more opaque.</p>
${decisionPlot(decisions, depth)}
</section>
<section>
<h2>Losses</h2>
<h3>Learning masks</h3>
${lineChart([{ name: 'diffusion loss under sampled masks', style: 's0', points: maskLoss }], { title: 'Loss while masks are learned', xLabel: 'step', yLabel: 'loss' })}
<h3>Recovery</h3>
${lineChart(curves, { title: 'Loss during recovery', xLabel: 'step', yLabel: 'denoising loss', logarithmic: true })}
</section>
<section>
<h2>How it was made</h2>
<dl>
<dt>command</dt><dd><code>${escape(command)}</code></dd>
<dt>seed</dt><dd>${seed}</dd>
<dt>backend</dt><dd>${escape(backend)}</dd>
<dt>machine</dt><dd>${escape(machine)}</dd>
<dt>date</dt><dd>${escape(date)}</dd>
${Object.entries(settings).map(([name, value]) => `<dt>${escape(name)}</dt><dd>${escape(String(value))}</dd>`).join('\n')}
</dl>
</section>
</main>
</body>
</html>
`;
}

function row(r: ReportRow): string {
  const cells = [r.layers, `${(r.parameters / 1e6).toFixed(2)} M`, r.imagesPerSecond.toFixed(1), r.fid.toFixed(2), r.inceptionScore.toFixed(2), r.precision.toFixed(3), r.recall.toFixed(3), `${(100 * r.agreement).toFixed(0)} %`];
  return `<tr><th scope="row">${escape(r.name)}</th>${cells.map((c) => `<td>${c}</td>`).join('')}<td class="kept-list">${r.kept === undefined ? '' : r.kept.join(' ')}</td></tr>`;
}

function base64(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

const css = `
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5c6370; --paper: #fff; --line: #d9dce1; --c0: #2563eb; --c1: #d9480f; --c2: #2b8a3e; --c3: #9c36b5; --c4: #0c8599; --c5: #e67700; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa2ad; --paper: #16181b; --line: #34383e; --c0: #74a7ff; --c1: #ff9466; --c2: #69db7c; --c3: #da8ff0; --c4: #4fd1e0; --c5: #ffc266; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .5rem; } h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; } h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
.lead { color: var(--soft); max-width: 46rem; }
figure { margin: 0 0 1rem; } figcaption { font-size: .9rem; color: var(--soft); margin-bottom: .25rem; }
figure img { width: 100%; height: auto; image-rendering: pixelated; border-radius: 4px; display: block; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; } thead th { color: var(--soft); font-weight: 500; } th:first-child { text-align: left; } .kept-list { color: var(--soft); }
.notes { color: var(--soft); font-size: .9rem; padding-left: 1.1rem; }
${chartCss}.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 0; font-size: .85rem; color: var(--soft); } .legend i { display: inline-block; width: 1rem; height: 3px; vertical-align: middle; margin-right: .35rem; }
.legend .s0 { background: var(--c0); } .legend .s1 { background: var(--c1); } .legend .s2 { background: var(--c2); } .legend .s3 { background: var(--c3); } .legend .s4 { background: var(--c4); } .legend .s5 { background: var(--c5); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; font-size: .92rem; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
`;
