import { type TemplateResult, html, svg } from 'lit-html';
import { guard } from 'lit-html/directives/guard.js';
import type { Points } from '../state';

/** Points that a curve is drawn with at most. */
const MOST = 300;

/** A loss over steps; its numbers are in the text for who cannot see it. */
export const curve = ({ name, points, steps }: { name: string; points: Points; steps: number }): TemplateResult => html`<figure class="curve">
  <figcaption>${name} <span class="muted">${points.length === 0 ? 'not begun' : `${points.at(-1)![1].toFixed(4)} at step ${points.at(-1)![0]}`}</span></figcaption>
  ${guard([points, steps], () => plot(name, points, steps))}
</figure>`;

function plot(name: string, points: Points, steps: number): TemplateResult {
  const finite = points.filter(([, value]) => Number.isFinite(value));
  const smooth = averaged(finite);
  const values = finite.map(([, value]) => value);
  const [low, high] = values.length === 0 ? [0, 1] : [Math.min(...values), Math.max(...values)];
  const span = high - low || 1;
  const path = (all: Points): string => thinned(all).map(([step, value]) => `${((100 * step) / steps).toFixed(2)},${(100 - (100 * (value - low)) / span).toFixed(2)}`).join(' ');
  const words = finite.length === 0 ? `${name}: no steps yet` : `${name}: from ${values[0]!.toFixed(4)} to ${values.at(-1)!.toFixed(4)} in ${finite.length} steps, lowest ${low.toFixed(4)}`;
  return html`<div class="plot">
    <span class="y top">${values.length === 0 ? '' : high.toFixed(3)}</span><span class="y bottom">${values.length === 0 ? '' : low.toFixed(3)}</span>
    <svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label=${words}>${svg`<polyline class="raw" points=${path(finite)} /><polyline class="line" points=${path(smooth)} />`}</svg>
    <span class="x left">0</span><span class="x right">${steps} steps</span>
  </div>`;
}

/** A running average; the first points weigh alike. */
function averaged(points: Points): Points {
  let mean: number | undefined;
  return points.map(([step, value], i) => [step, (mean = mean === undefined ? value : mean + Math.max(0.1, 1 / (i + 1)) * (value - mean))]);
}

const thinned = (points: Points): Points => (points.length <= MOST ? points : points.filter((_, i) => i % Math.ceil(points.length / MOST) === 0 || i === points.length - 1));
