import type { RunEvent } from '../runs/event-log.js';
import { type DecisionPoint, type Series, chartCss, decisionPlot, escape, lineChart } from '../report/svg.js';
import type { RunState } from './run-view.js';

/** Points of a curve at most: more would not be seen. */
const MOST_POINTS = 400;

/** What changes on the page; the browser asks for it again and again. */
export function liveHtml({ identity, writer, events, layers, samples, best }: RunState): string {
  const last = events.at(-1);
  const total = typeof identity['steps'] === 'number' ? identity['steps'] : undefined;
  const names = [...new Set(events.slice(-1).flatMap(({ values }) => Object.keys(values)))].filter((name) => !['skipped', 'parts'].includes(name));
  const loss = lineChart(names.slice(0, 6).map((name, i) => curve(events, name, i)), { title: 'Loss by step', xLabel: 'step', yLabel: 'loss', logarithmic: true });
  const decisions = decisionsOf(layers);
  const depth = Object.keys(layers.at(-1)?.values ?? {}).filter((name) => name.startsWith('gate ')).length;
  const sections: [string, string][] = [
    ['Loss', loss],
    ['Decision: the layers kept so far, as dark as they are likely', decisionPlot(decisions, depth)],
    ['Gates: probability of each layer to be kept', layerBars(layers, 'gate')],
    ['Feature loss of each layer', layerChart(layers, 'layer', 'feature loss')],
    ['Largest activation of each layer of the student', layerChart(layers, 'activation', '|activation|')],
    ['Samples of the same noise', samples.slice(0, 6).map((name) => `<figure><img src="/${name}" alt="Samples at step ${Number(name.slice(8, -4))}"><figcaption>step ${Number(name.slice(8, -4))}</figcaption></figure>`).join('')],
  ];
  const state = writer === undefined ? (last !== undefined && (last.step === total || last.done === true) ? 'finished' : 'not running; its command goes on with it') : `running, process ${writer.pid} on ${escape(writer.host)}`;
  return [
    `<p class="state"><b>${state}</b>${last === undefined ? ': no step yet' : ` · step ${last.step}${total === undefined ? '' : ` of ${total}`}${speed(events, total, writer !== undefined)}`}${best === undefined ? '' : ` · best ${best.value.toPrecision(4)} at step ${best.step}`}${skippedOf(last)}</p>`,
    last === undefined ? '' : `<p class="numbers">${Object.entries(last.values).map(([name, value]) => `<span>${escape(name)} <b>${typeof value === 'number' ? value.toPrecision(4) : escape(value)}</b></span>`).join('')}</p>`,
    ...sections.filter(([, html]) => html !== '').map(([title, html]) => `<section><h2>${title}</h2>${html}</section>`),
  ].join('\n');
}

const skippedOf = (last: RunEvent | undefined): string => (last?.values['skipped'] === undefined ? '' : ` · <b class="warning">${Number(last.values['skipped'])} steps skipped</b>: not finite`);

/** Steps a second now: the median of the last ones, among which the run may have been stopped for a night. */
function speed(events: readonly RunEvent[], total: number | undefined, running: boolean): string {
  const recent = events.slice(-50);
  const last = recent.at(-1)!;
  const each = recent.slice(1).map((event, i) => (event.time - recent[i]!.time) / (event.step - recent[i]!.step));
  const perSecond = 1000 / each.toSorted((a, b) => a - b)[each.length >> 1]!;
  if (!running || !Number.isFinite(perSecond) || perSecond <= 0) return '';
  const left = total === undefined ? '' : `, ${duration((total - last.step) / perSecond)} left`;
  return ` · ${perSecond.toPrecision(3)} steps/s${left}`;
}

function duration(seconds: number): string {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : seconds < 5400 ? `${Math.ceil(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** Means over stretches of steps: single steps are noise. */
function curve(events: readonly RunEvent[], name: string, style: number): Series {
  const points: [number, number][] = [];
  const width = Math.max(1, Math.ceil(events.length / MOST_POINTS));
  for (let at = 0; at < events.length; at += width) {
    const values = events.slice(at, at + width).flatMap(({ values: v }) => (typeof v[name] === 'number' ? [v[name]] : []));
    if (values.length > 0) points.push([events[Math.min(events.length, at + width) - 1]!.step, values.reduce((a, b) => a + b, 0) / values.length]);
  }
  return { name, style: `s${style}`, points };
}

/** The layers' own numbers, `'layer 3'`, by layer. */
function ofLayers({ values }: RunEvent, prefix: string): [layer: number, value: number][] {
  return Object.entries(values).flatMap(([name, value]) => (name.startsWith(`${prefix} `) && typeof value === 'number' ? [[Number(name.slice(prefix.length + 1)), value] as [number, number]] : []));
}

function layerChart(layers: readonly RunEvent[], prefix: string, yLabel: string): string {
  const own = layers.filter((event) => ofLayers(event, prefix).length > 0);
  const count = own.length === 0 ? 0 : ofLayers(own.at(-1)!, prefix).length;
  return lineChart(Array.from({ length: count }, (_, i) => ({ ...curve(own, `${prefix} ${i}`, i % 6), name: `${i}` })), { title: `${yLabel} by step`, xLabel: 'step', yLabel, logarithmic: true });
}

/** The present probabilities as bars, with those of the start behind them. */
function layerBars(layers: readonly RunEvent[], prefix: string): string {
  const own = layers.filter((event) => ofLayers(event, prefix).length > 0);
  if (own.length === 0) return '';
  const bars = ofLayers(own.at(-1)!, prefix).map(([layer, value]) => `<tr><th>${layer}</th><td><meter min="0" max="1" value="${value.toFixed(4)}" aria-label="layer ${layer}"></meter></td><td>${(100 * value).toFixed(0)} %</td></tr>`);
  return `<table class="bars">${bars.join('')}</table>`;
}

function decisionsOf(layers: readonly RunEvent[]): DecisionPoint[] {
  return layers.flatMap((event) => {
    const gates = new Map(ofLayers(event, 'gate'));
    if (gates.size === 0) return [];
    const kept = ofLayers(event, 'keep').flatMap(([layer, value]) => (value === 1 ? [layer] : []));
    return [{ step: event.step, kept, confidence: kept.map((layer) => gates.get(layer) ?? 1) }];
  });
}

/** The page around it. @param nonce of its one script */
export function pageHtml({ command, identity }: Pick<RunState, 'command' | 'identity'>, live: string, nonce: string): string {
  const task = typeof identity['task'] === 'string' ? identity['task'] : 'run';
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(task)} · tinyfusion</title>
<style>${css}</style>
</head>
<body>
<main>
<h1>${escape(task)}</h1>
<p><code>${escape(command)}</code></p>
<details><summary>options and hashes</summary><table>${Object.entries(identity).map(([name, value]) => `<tr><th>${escape(name)}</th><td>${escape(JSON.stringify(value))}</td></tr>`).join('')}</table></details>
<div id="live" aria-live="off">${live}</div>
</main>
<script nonce="${nonce}">
let shown = document.getElementById('live').innerHTML;
setInterval(async () => {
  const live = document.getElementById('live');
  try {
    const answer = await fetch('/live');
    const html = await answer.text();
    if (!answer.ok) throw new Error(html);
    if (html !== shown) live.innerHTML = shown = html;
    live.classList.remove('stale');
  } catch {
    live.classList.add('stale');
  }
}, 2000);
</script>
</body>
</html>
`;
}

const css = `:root { color-scheme: light dark; --back: #fff; --text: #1d2229; --soft: #646c78; --line: #dfe3e8; --c0: #2f74e8; --c1: #e2622b; --c2: #37a04b; --c3: #a855c4; --c4: #1592a6; --c5: #e08a1a; }
@media (prefers-color-scheme: dark) { :root { --back: #14171c; --text: #e8ebf0; --soft: #9aa3b0; --line: #2b3038; } }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 24px; }
h1 { margin: 0; font-size: 26px; } h2 { font-size: 16px; margin: 0 0 8px; }
code { font-size: 13px; color: var(--soft); overflow-wrap: anywhere; }
#live { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 28px; margin-top: 16px; } #live > p { grid-column: 1 / -1; margin: 0; } .stale { opacity: 0.5; }
.numbers span { margin-right: 20px; color: var(--soft); } .numbers b { color: var(--text); font-variant-numeric: tabular-nums; } .warning { color: #c62828; }
table { border-collapse: collapse; font-size: 13px; } th { text-align: left; font-weight: 500; color: var(--soft); padding: 2px 16px 2px 0; vertical-align: top; } td { overflow-wrap: anywhere; }
.bars { width: 100%; } .bars td:nth-child(2) { width: 100%; } meter { width: 100%; height: 14px; } .bars td:last-child { padding-left: 12px; text-align: right; white-space: nowrap; }
figure { margin: 0 0 12px; } img { max-width: 100%; image-rendering: pixelated; } figcaption { color: var(--soft); font-size: 13px; }
.legend { margin: 4px 0 0; font-size: 13px; color: var(--soft); } .legend span { margin-right: 14px; } .legend i { display: inline-block; width: 12px; height: 3px; margin-right: 5px; vertical-align: middle; }
.legend .s0 { background: var(--c0); } .legend .s1 { background: var(--c1); } .legend .s2 { background: var(--c2); } .legend .s3 { background: var(--c3); } .legend .s4 { background: var(--c4); } .legend .s5 { background: var(--c5); }
${chartCss}`;
