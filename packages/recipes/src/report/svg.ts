/** Styles of charts; the colours are the page's variables. */
export const chartCss = `svg { width: 100%; height: auto; } .grid { stroke: var(--line); } .tick, .label { fill: var(--soft); font: 11px system-ui, sans-serif; } .kept { fill: var(--c0); }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.line.s0 { stroke: var(--c0); } .line.s1 { stroke: var(--c1); } .line.s2 { stroke: var(--c2); } .line.s3 { stroke: var(--c3); } .line.s4 { stroke: var(--c4); } .line.s5 { stroke: var(--c5); }
.dot { stroke-linecap: round; stroke-width: 6; } .dash { stroke-dasharray: 5 3; } .mark { stroke: var(--soft); stroke-dasharray: 2 3; }
`;

/** One curve of a chart. */
export interface Series {
  name: string;
  /** CSS class that carries the colour, `s0` … `s5`; with ` dash` broken. */
  style: string;
  points: readonly (readonly [x: number, y: number])[];
}

/** Labels of a chart. */
export interface ChartOptions {
  title: string;
  xLabel: string;
  yLabel: string;
  /** Whether the vertical axis is logarithmic. Default `false`. */
  logarithmic?: boolean;
  /** Upright lines with a name, e.g. thresholds. Default: none. */
  marks?: readonly (readonly [x: number, name: string])[];
}

const width = 640;
const height = 300;
const margin = { left: 58, right: 12, top: 12, bottom: 40 };

/** A line chart as SVG. Points with a value that is not finite, or not positive on a logarithmic axis, are left out. */
export function lineChart(series: readonly Series[], { title, xLabel, yLabel, logarithmic = false, marks = [] }: ChartOptions): string {
  const usable = series.map((s) => ({ ...s, points: s.points.filter(([, y]) => Number.isFinite(y) && (!logarithmic || y > 0)) })).filter((s) => s.points.length > 0);
  const all = usable.flatMap((s) => [...s.points]);
  if (all.length === 0) return '';
  const scaleY = logarithmic ? Math.log10 : (v: number) => v;
  const [x0, x1] = extent(all.map(([x]) => x));
  const [y0, y1] = extent(all.map(([, y]) => scaleY(y)));
  const px = (x: number) => margin.left + ((x - x0) / (x1 - x0)) * (width - margin.left - margin.right);
  const py = (y: number) => height - margin.bottom - ((scaleY(y) - y0) / (y1 - y0)) * (height - margin.top - margin.bottom);
  const yTicks = ticks(y0, y1, 5).map((v) => (logarithmic ? 10 ** v : v));
  const xTicks = ticks(x0, x1, 6);
  const lines = usable.map((s) => `<polyline class="line ${s.style}" points="${s.points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(' ')}"><title>${escape(s.name)}</title></polyline>`);
  return [
    `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escape(title)}">`,
    ...yTicks.map((v) => `<line class="grid" x1="${margin.left}" x2="${width - margin.right}" y1="${py(v).toFixed(1)}" y2="${py(v).toFixed(1)}"/><text class="tick" x="${margin.left - 6}" y="${(py(v) + 4).toFixed(1)}" text-anchor="end">${short(v)}</text>`),
    ...xTicks.map((v) => `<text class="tick" x="${px(v).toFixed(1)}" y="${height - margin.bottom + 16}" text-anchor="middle">${short(v)}</text>`),
    `<text class="label" x="${(width + margin.left) / 2}" y="${height - 6}" text-anchor="middle">${escape(xLabel)}</text>`,
    `<text class="label" transform="translate(14 ${(height - margin.bottom) / 2}) rotate(-90)" text-anchor="middle">${escape(yLabel)}</text>`,
    ...marks.filter(([x]) => x >= x0 && x <= x1).map(([x, name]) => `<line class="mark" x1="${px(x).toFixed(1)}" x2="${px(x).toFixed(1)}" y1="${margin.top}" y2="${height - margin.bottom}"/><text class="tick" x="${(px(x) + 4).toFixed(1)}" y="${height - margin.bottom - 6}">${escape(name)}</text>`),
    ...lines,
    '</svg>',
    `<p class="legend">${usable.map((s) => `<span><i class="${s.style}"></i>${escape(s.name)}</span>`).join('')}</p>`,
  ].join('\n');
}

/** Points as SVG, on the axes of {@link lineChart}. */
export function scatterPlot(points: readonly (readonly [x: number, y: number])[], options: ChartOptions): string {
  // a line that goes nowhere is a dot with round ends
  return lineChart(points.map((point) => ({ name: `${point[0].toPrecision(3)}, ${point[1].toPrecision(3)}`, style: 's0 dot', points: [point, point] })), options);
}

/** A chart as a file of its own: with colours that suit light and dark pages, and its legend inside. */
export function standaloneSvg(chart: string): string {
  const [svg] = /<svg[\s\S]*<\/svg>/.exec(chart) ?? [''];
  const names = [...chart.matchAll(/<i class="(s\d(?: dash)?)"><\/i>([^<]*)<\/span>/g)];
  // beside the chart, so that it hides no curve
  const legend = names.map(([, style, name], i) => `<line class="line ${style}" x1="${width + 6}" x2="${width + 24}" y1="${24 + 15 * i}" y2="${24 + 15 * i}"/><text class="tick" x="${width + 30}" y="${28 + 15 * i}">${name}</text>`);
  const wide = names.length === 0 ? width : width + legendWidth(names.map(([, , name]) => name!));
  const whole = svg.replace(/^<svg /, `<svg xmlns="http://www.w3.org/2000/svg" width="${wide}" `).replace(`viewBox="0 0 ${width} `, `viewBox="0 0 ${wide} `).replace(/>/, `><style>${chartCss}</style>`).replace('</svg>', `${legend.join('')}</svg>`);
  // viewers outside of browsers know no variables
  return whole.replace(/var\(--(\w+)\)/g, (_, name: string) => standaloneColours[name] ?? 'currentColor');
}

/** Room for the line and the name of each series; a letter of 11 pixels is seven wide at most, but for a few. */
const legendWidth = (names: readonly string[]): number => Math.max(100, 36 + 7 * Math.max(...names.map((name) => name.length)));

/** Colours of files, legible on light and dark. */
const standaloneColours: Readonly<Record<string, string>> = { soft: '#7a828e', line: '#7a828e44', c0: '#2f74e8', c1: '#e2622b', c2: '#37a04b', c3: '#a855c4', c4: '#1592a6', c5: '#e08a1a' };

/** What the decision plot needs of one moment of mask learning. */
export interface DecisionPoint {
  step: number;
  /** Kept layers, ascending. */
  kept: readonly number[];
  /** Probability of the choice that keeps each kept layer, in the same order. */
  confidence: readonly number[];
}

/** Kept layers (rows) over steps (columns), as opaque as the decision is confident: the paper's figure 6. */
export function decisionPlot(history: readonly DecisionPoint[], depth: number): string {
  if (history.length === 0) return '';
  const rowHeight = Math.min(22, (height - margin.top - margin.bottom) / depth);
  const total = margin.top + depth * rowHeight + margin.bottom;
  const last = history.at(-1)!.step;
  const first = history[0]!.step;
  const columnWidth = (width - margin.left - margin.right) / history.length;
  const cells = history.flatMap(({ step, kept, confidence }, column) =>
    kept.map((layer, i) => {
      const x = margin.left + column * columnWidth;
      const y = margin.top + layer * rowHeight;
      return `<rect class="kept" x="${x.toFixed(2)}" y="${y.toFixed(1)}" width="${(columnWidth + 0.3).toFixed(2)}" height="${(rowHeight - 2).toFixed(1)}" fill-opacity="${(confidence[i] ?? 1).toFixed(3)}"><title>step ${step}: layer ${layer}, ${Math.round(100 * (confidence[i] ?? 1))} %</title></rect>`;
    }),
  );
  return [
    `<svg viewBox="0 0 ${width} ${total.toFixed(0)}" role="img" aria-label="Kept layers over the steps of mask learning">`,
    ...Array.from({ length: depth }, (_, layer) => `<text class="tick" x="${margin.left - 6}" y="${(margin.top + layer * rowHeight + rowHeight / 2 + 3).toFixed(1)}" text-anchor="end">${layer}</text>`),
    ...cells,
    ...ticks(first, last, 6).map((v) => `<text class="tick" x="${(margin.left + ((v - first) / Math.max(1, last - first)) * (width - margin.left - margin.right)).toFixed(1)}" y="${(total - margin.bottom + 16).toFixed(0)}" text-anchor="middle">${short(v)}</text>`),
    `<text class="label" x="${(width + margin.left) / 2}" y="${(total - 6).toFixed(0)}" text-anchor="middle">step</text>`,
    `<text class="label" transform="translate(14 ${(total / 2 - 12).toFixed(0)}) rotate(-90)" text-anchor="middle">layer</text>`,
    '</svg>',
  ].join('\n');
}

/** Text that is safe inside HTML and attributes. */
export function escape(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!);
}

function extent(values: readonly number[]): [number, number] {
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  return high > low ? [low, high] : [low - 0.5, low + 0.5];
}

/** Round numbers from `low` to `high`, about `count` of them. */
function ticks(low: number, high: number, count: number): number[] {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw)!;
  const out: number[] = [];
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-9; v += step) out.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return out;
}

function short(value: number): string {
  const size = Math.abs(value);
  if (size >= 10_000) return `${+(value / 1000).toFixed(1)}k`;
  if (size !== 0 && size < 0.001) return value.toExponential(0);
  return String(+value.toPrecision(3));
}
