import { DataError } from '@tinyfusion/core';

/** The run that a person asked to go on with. @throws DataError where another has taken its place, as one of another window does */
export function theRunLeft<R extends object>(kept: R | undefined, wanted: Partial<R>): R {
  if (kept !== undefined && Object.keys(wanted).every((key) => JSON.stringify(kept[key as keyof R]) === JSON.stringify(wanted[key as keyof R]))) return kept;
  throw new DataError('the run that was left is kept no longer: another, perhaps of a second window, took its place; begin anew, or reload the page to see what there is');
}
