import { DataError } from '@tinyfusion/core';

/** The run that a person asked to go on with. @throws DataError where another has taken its place, as one of another window does */
export function theRunLeft<R extends { readonly teacher: string; readonly settings: object }>(kept: R | undefined, wanted: { readonly teacher: string; readonly settings: object }): R {
  if (kept?.teacher === wanted.teacher && JSON.stringify(kept.settings) === JSON.stringify(wanted.settings)) return kept;
  throw new DataError('the run that was left is kept no longer: another, perhaps of a second window, took its place; begin anew, or reload the page to see what there is');
}
