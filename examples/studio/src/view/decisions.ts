import { type TemplateResult, html, nothing, svg } from 'lit-html';
import { guard } from 'lit-html/directives/guard.js';
import type { Moment } from '../state';
import { percent } from '../words';

/** How sure each block is to stay, over the steps: a row a block, darker the surer; a line where it is among the kept. */
export const decisionPlot = (moments: readonly Moment[], steps: number, depth: number): TemplateResult => html`<figure class="decisions">
  <figcaption>Chance of each block to stay</figcaption>
  ${guard([moments, steps, depth], () => html`<div class="map">
      <div class="rows" aria-hidden="true">${Array.from({ length: depth }, (_, i) => html`<span>${i}</span>`)}</div>
      <svg viewBox="0 0 ${steps} ${depth}" preserveAspectRatio="none" role="img" aria-label=${words(moments)} style="--rows:${depth}">
        ${moments.flatMap(({ step, decision }, m) => {
          const from = moments[m - 1]?.step ?? 0;
          const inclusion = decision.groups.flatMap((group) => group.inclusion);
          return inclusion.map((p, block) => svg`<rect class=${decision.kept.includes(block) ? 'kept' : ''} x=${from} y=${block + 0.06} width=${step - from} height="0.88" fill-opacity=${(0.06 + 0.94 * p).toFixed(3)} />`);
        })}
      </svg>
      <div class="axis" aria-hidden="true"><span>0</span><span>${steps} steps</span></div>
    </div>`)}
</figure>`;

function words(moments: readonly Moment[]): string {
  const last = moments.at(-1);
  if (last === undefined) return 'Decision plot: no steps yet';
  return `Decision plot after ${last.step} steps: ${last.decision.groups.flatMap((group) => group.inclusion).map((p, i) => `block ${i} ${percent(p)}`).join(', ')}`;
}

/** Options of a group that are shown each. */
const MOST = 10;

/** The gates of each group as they stand: a bar an option. */
export function gates(moment: Moment | undefined): TemplateResult | typeof nothing {
  if (moment === undefined) return nothing;
  let start = 0;
  return html`<div class="gates" role="list" aria-label="Gates of each group">
    ${moment.decision.groups.map(({ probabilities, inclusion, kept, confidence }) => {
      const from = start;
      start += inclusion.length;
      const options = combinations(inclusion.length, kept.length);
      const shown = probabilities.map((p, i) => [p, i] as const).toSorted(([a], [b]) => b - a).slice(0, MOST).toSorted(([, a], [, b]) => a - b);
      return html`<div class="gate" role="listitem" aria-label="Blocks ${from} to ${start - 1}: ${kept.join(', ')} stay, ${percent(confidence)} sure">
        ${shown.map(([p, i]) => html`<span class=${p === confidence ? 'best' : ''} style="--p:${p}"><i></i><b>${options[i]!.map((j) => from + j).join(' ')}</b></span>`)}
      </div>`;
    })}
  </div>`;
}

/** All ways to keep n of m, in the order of the gates. */
function combinations(m: number, n: number, from = 0): number[][] {
  if (n === 0) return [[]];
  return Array.from({ length: Math.max(0, m - from - n + 1) }, (_, i) => combinations(m, n - 1, from + i + 1).map((rest) => [from + i, ...rest])).flat();
}
