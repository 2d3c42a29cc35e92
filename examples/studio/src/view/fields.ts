import { type TemplateResult, html, nothing } from 'lit-html';
import { live } from 'lit-html/directives/live.js';

/** A number with its name. */
interface NumberField {
  readonly label: string;
  readonly value: number;
  readonly min: number;
  readonly max: number;
  readonly step?: number;
  readonly disabled?: boolean;
  readonly change: (value: number) => void;
}

const read = (event: globalThis.Event, { min, max, value, step = 1 }: NumberField): number => {
  const typed = (event.target as HTMLInputElement).valueAsNumber; // of an empty field NaN
  if (!Number.isFinite(typed)) return value;
  const clipped = Math.min(max, Math.max(min, typed));
  return Number.isInteger(step) ? Math.round(clipped) : clipped;
};

/** A number to type. What is being typed stays as it is until it is read, however often the page is drawn meanwhile. */
export const numberField = (field: NumberField): TemplateResult => html`<label class="field">
  <span>${field.label}</span>
  <input
    type="number"
    inputmode="decimal"
    min=${field.min}
    max=${field.max}
    step=${field.step ?? 1}
    .value=${String(field.value)}
    ?disabled=${field.disabled ?? false}
    @change=${(event: globalThis.Event) => {
      const value = read(event, field);
      (event.target as HTMLInputElement).value = String(value);
      field.change(value);
    }}
  />
</label>`;

/** A number to slide; `shown` is how it reads. */
export const sliderField = (field: NumberField & { readonly shown?: string }): TemplateResult => html`<label class="field slider">
  <span>${field.label} <b aria-hidden="true">${field.shown ?? field.value}</b></span>
  <input
    type="range"
    min=${field.min}
    max=${field.max}
    step=${field.step ?? 1}
    .value=${live(String(field.value))}
    aria-label=${field.label}
    aria-valuetext=${field.shown ?? nothing}
    ?disabled=${field.disabled ?? false}
    @input=${(event: globalThis.Event) => field.change(read(event, field))}
  />
</label>`;

/** One of several. */
export const selectField = <T extends string | number>({ label, value, options, disabled, change }: { label: string; value: T; options: readonly (readonly [T, string])[]; disabled?: boolean; change: (value: T) => void }): TemplateResult => html`<label class="field">
  <span>${label}</span>
  <select ?disabled=${disabled ?? false} @change=${(event: globalThis.Event) => change(options[(event.target as HTMLSelectElement).selectedIndex]![0])}>
    ${options.map(([option, name]) => html`<option value=${option} .selected=${live(option === value)}>${name}</option>`)}
  </select>
</label>`;
