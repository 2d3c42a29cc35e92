import type { LayerActivations } from '@tinyfusion/distill';
import { type TemplateResult, html, svg } from 'lit-html';
import { guard } from 'lit-html/directives/guard.js';
import { live } from 'lit-html/directives/live.js';
import { lookAtActivations } from '../actions/recover';
import { type State, amend, update } from '../state';
import { percent } from '../words';
import { selectField } from './fields';

/** Bins are half a σ wide; the axis ends at this many σ. */
const END = 20;
const BINS = 2 * END;
/** Decades of the logarithmic axis. */
const DECADES = 7;

/** How activations lie around their mean, and the threshold of the mask over them. */
export function histogram({ activations, recover, histogramOf, job }: State): TemplateResult {
  const busy = job !== undefined;
  const off = recover.sigmas === 0;
  const of = (layers: readonly LayerActivations[]): readonly LayerActivations[] => layers.filter(({ layer }) => histogramOf === undefined || layer === histogramOf);
  const change = (sigmas: number): void => amend('recover', { sigmas });
  return html`<figure class="histogram">
    <figcaption>Activations by their distance from the mean <span class="muted">share of all, logarithmic</span></figcaption>
    ${activations === undefined
      ? html`<div class="empty"><p>A few activations are huge, and would fill the loss. See where they lie, and choose where the mask begins.</p><button type="button" class="button" ?disabled=${busy} @click=${() => void lookAtActivations()}>Look at the activations</button></div>`
      : html`
          <div class="plot">
            ${guard([activations, histogramOf], () => bars(of(activations.teacher), of(activations.student)))}
            <span class="veil" style="--at:${off ? 1 : Math.min(1, recover.sigmas / END)}" aria-hidden="true"></span>
          </div>
          <input
            class="threshold"
            type="range"
            min="0"
            max=${END}
            step="0.5"
            aria-label="Threshold of the mask, in standard deviations"
            aria-valuetext=${off ? 'no mask' : `${recover.sigmas} σ`}
            .value=${live(String(off ? END : recover.sigmas))}
            ?disabled=${busy}
            @input=${(event: globalThis.Event) => change(Math.max(0.5, Number((event.target as HTMLInputElement).value)))}
          />
          <div class="axis" aria-hidden="true"><span>0 σ</span><span>5 σ</span><span>10 σ</span><span>15 σ</span><span>${END} σ</span></div>
          <p class="reading">${off ? 'No mask: every activation counts.' : masked(of(activations.teacher), of(activations.student), recover.sigmas)}</p>
          <p class="muted">Proposed: ${Number.isFinite(activations.proposed.sigmas) ? `${activations.proposed.sigmas} σ` : 'no mask'}; ${activations.proposed.why}.</p>
          <div class="fields">
            ${selectField({ label: 'Shown', value: histogramOf ?? -1, options: [[-1, 'all blocks'] as const, ...activations.teacher.map(({ layer }) => [layer, `block ${layer}`] as const)], change: (block) => update({ histogramOf: block < 0 ? undefined : block }) })}
            <label class="check"><input type="checkbox" .checked=${live(off)} ?disabled=${busy} @change=${() => change(off ? 2 : 0)} /> no mask</label>
            <span class="keys"><span class="key teacher"></span> teacher <span class="key student"></span> student</span>
          </div>
        `}
  </figure>`;
}

function masked(teacher: readonly LayerActivations[], student: readonly LayerActivations[], sigmas: number): string {
  const at = Math.min(80, Math.round(2 * sigmas));
  const share = (layers: readonly LayerActivations[], of: 'beyond' | 'energyBeyond'): number => layers.reduce((sum, layer) => sum + layer[of][at]!, 0) / Math.max(1, layers.length);
  return `At ${sigmas} σ the mask leaves out ${percent(share(teacher, 'beyond'))} of the teacher’s activations, which hold ${percent(share(teacher, 'energyBeyond'))} of their squared deviation${student.length === 0 ? '' : `; of the student’s ${percent(share(student, 'beyond'))} and ${percent(share(student, 'energyBeyond'))}`}.`;
}

/** Mean share of each bin; the last takes all beyond the axis. */
function shares(layers: readonly LayerActivations[]): number[] {
  return Array.from({ length: BINS }, (_, i) => layers.reduce((sum, { beyond }) => sum + beyond[i]! - (i === BINS - 1 ? 0 : beyond[i + 1]!), 0) / Math.max(1, layers.length));
}

const height = (share: number): number => (share <= 0 ? 0 : Math.max(0, 100 * (1 + Math.log10(share) / DECADES)));

function bars(teacher: readonly LayerActivations[], student: readonly LayerActivations[]): TemplateResult {
  const [theirs, own] = [shares(teacher), shares(student)];
  const outline = own.flatMap((share, i) => [`${i},${100 - height(share)}`, `${i + 1},${100 - height(share)}`]).join(' ');
  const farthest = theirs.findLastIndex((share) => share > 0);
  return html`<svg viewBox="0 0 ${BINS} 100" preserveAspectRatio="none" role="img" aria-label="Histogram: ${percent(theirs.slice(0, 4).reduce((a, b) => a + b, 0))} of the teacher’s activations lie within 2 σ, the farthest ${farthest === BINS - 1 ? `beyond ${END - 0.5}` : `at ${(farthest + 1) / 2}`} σ">
    ${theirs.map((share, i) => svg`<rect class="teacher" x=${i + 0.08} width="0.84" y=${100 - height(share)} height=${height(share)} />`)}
    ${svg`<polyline class="student" points=${outline} />`}
  </svg>`;
}
