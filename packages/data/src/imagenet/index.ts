/**
 * Names of ImageNet's classes; apart from the main entry because of their size.
 * @packageDocumentation
 */
import { ArgumentError } from '@tinyfusion/core';
import { names } from './names.js';

/** Words of each of the 1000 classes, as `imagenetClasses[207]`: `'golden retriever'`; synonyms follow after commas. */
export const imagenetClasses: readonly string[] = names.trim().split('\n');

/**
 * The number of a class.
 *
 * @param text its number, or one of its words in any case: `'207'`, `'golden retriever'`
 * @throws ArgumentError where there is no such class, with near ones; or several of that name (`'crane'`), with their numbers
 */
export function imagenetLabel(text: string): number {
  const wanted = text.trim().toLowerCase();
  if (/^\d+$/.test(wanted)) {
    if (Number(wanted) < imagenetClasses.length) return Number(wanted);
    throw new ArgumentError('class', text, 'a number from 0 to 999, or a name');
  }
  const found = imagenetClasses.flatMap((words, i) => (words.toLowerCase().split(', ').includes(wanted) ? [i] : []));
  if (found.length === 1) return found[0]!;
  if (found.length > 1) throw new ArgumentError('class', text, `one class; ${found.map((i) => `${i} is ${imagenetClasses[i]}`).join('; ')}: say the number`);
  const near = wanted.length < 3 ? [] : imagenetClasses.flatMap((words, i) => (words.toLowerCase().includes(wanted) ? [`${i} ${words.split(', ')[0]}`] : []));
  throw new ArgumentError('class', text, `a number from 0 to 999, or the name of an ImageNet class${near.length > 0 ? `; near are ${near.slice(0, 5).join(', ')}` : ''}`);
}
