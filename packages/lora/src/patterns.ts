import { ArgumentError } from '@tinyfusion/core';

/** Values by pattern: regular expressions that the end of a path must match, from a dot on. The rule is that of PEFT 0.14 and later. */
export type PathPatterns = Readonly<Record<string, number>>;

/**
 * The value of the first pattern that fits a path: PEFT's rule for `rank_pattern` and `alpha_pattern`. A pattern fits
 * where the whole path, or what follows one of its dots, matches it; `^` ties it to the beginning.
 * @param option what the patterns are, for the message
 */
export function patternValue(option: string, patterns: PathPatterns, path: string, otherwise: number): number {
  for (const [pattern, value] of Object.entries(patterns)) if (endPattern(option, pattern).test(path)) return value;
  return otherwise;
}

/** A pattern for one path and no other. */
export function exactPattern(path: string): string {
  return `^${escaped(path)}`;
}

/** Text as a regular expression that matches it alone. */
export function escaped(text: string): string {
  return text.replaceAll(/[$()*+.?[\\\]^{|}]/g, String.raw`\$&`);
}

/** The expression that a path must match for a pattern to fit. @throws ArgumentError where it is none */
export function endPattern(option: string, pattern: string): RegExp {
  try {
    // with the flag u, what Python knows and JavaScript does not is an error instead of something else
    return new RegExp(String.raw`^(?:.*\.)?(?:${pattern})$`, 'u');
  } catch (cause) {
    throw new ArgumentError(option, pattern, `patterns that JavaScript understands (${cause instanceof Error ? cause.message : String(cause)})`);
  }
}
