import { noChange } from 'lit-html';
import { Directive, type ElementPart, type PartInfo, PartType, directive } from 'lit-html/directive.js';

type Draw = (canvas: HTMLCanvasElement) => void;

/** `<canvas ${paint(draw, …on)}>`: draws again when one of `on` has changed. */
class Paint extends Directive {
  #on: readonly unknown[] | undefined;

  constructor(part: PartInfo) {
    super(part);
    if (part.type !== PartType.ELEMENT) throw new TypeError('paint goes on an element');
  }

  override render(_draw: Draw, ..._on: readonly unknown[]): unknown {
    return noChange;
  }

  override update(part: ElementPart, [draw, ...on]: [Draw, ...unknown[]]): unknown {
    if (this.#on !== undefined && on.length === this.#on.length && on.every((value, i) => value === this.#on![i])) return noChange;
    this.#on = on;
    draw(part.element as HTMLCanvasElement);
    return noChange;
  }
}

export const paint = directive(Paint);
