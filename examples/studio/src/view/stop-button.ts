import { type TemplateResult, html } from 'lit-html';

/** A button that stops what runs. It takes the place of the one that began it, so the second click of a double one does not count. */
export const stopButton = (label: string, stop: (() => void) | undefined, stopping = false): TemplateResult =>
  html`<button type="button" class="button" ?disabled=${stopping} @click=${(event: MouseEvent) => void (event.detail < 2 && stop?.())}>${stopping ? 'Stopping …' : label}</button>`;
