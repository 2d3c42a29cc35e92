import { ArgumentError, type Rng } from '@tinyfusion/core';
import type { Init } from '@tinyfusion/nn';
import type { LayerChoice } from './layer-choice.js';
import { type PathPatterns, endPattern, patternValue } from './patterns.js';

/** What an adapter is, whatever layers it is on. */
export interface LoraSettings {
  /** Default 8. */
  rank: number;
  /** Numerator of the scale, for every rank. Default twice `rank`. */
  alpha: number;
  /** Other ranks for some layers; see {@link PathPatterns}. Default: none. */
  rankPattern: PathPatterns;
  /** Other alphas for some layers. Default: none. */
  alphaPattern: PathPatterns;
  /** Whether the scale is alpha/√rank (Kalajdzievski 2023) in place of alpha/rank. Default `false`. */
  rsLora: boolean;
  /** Whether a trained magnitude for each output, and the direction apart from it, make the weight (DoRA, Liu et al. 2024). Default `false`. */
  dora: boolean;
  /** Probability with which training zeroes an input of the correction. Default 0. */
  dropout: number;
}

/** Options of {@link injectLora} and {@link LoraAdapters.add}; the defaults are TinyFusion's. */
export interface LoraOptions extends Partial<LoraSettings> {
  /** An `Rng` draws A (uniform ±1/√in) and leaves B zero; `'zeros'` leaves both to a file. */
  init: Init;
  /** Which linear layers. Default: all. */
  targets?: LayerChoice;
  /** Which of these not. Default: none. */
  exclude?: LayerChoice;
}

/** What an adapter is on one layer. */
export interface LayerSettings {
  rank: number;
  alpha: number;
  /** alpha/rank or alpha/√rank. */
  scale: number;
  dora: boolean;
  dropout: number;
}

/** Options with their defaults. @throws ArgumentError where one is out of range */
export function settingsOf({ rank = 8, alpha = 2 * rank, rankPattern = {}, alphaPattern = {}, rsLora = false, dora = false, dropout = 0 }: Partial<LoraSettings>): LoraSettings {
  checkRank('LoraOptions.rank', rank);
  checkAlpha('LoraOptions.alpha', alpha);
  checkPatterns('LoraOptions.rankPattern', rankPattern, checkRank);
  checkPatterns('LoraOptions.alphaPattern', alphaPattern, checkAlpha);
  if (!(dropout >= 0 && dropout < 1)) throw new ArgumentError('LoraOptions.dropout', dropout, 'a probability from 0 to below 1');
  return { rank, alpha, rankPattern: { ...rankPattern }, alphaPattern: { ...alphaPattern }, rsLora, dora, dropout };
}

/** The settings for the layer at `path`. */
export function settingsAt({ rank, alpha, rankPattern, alphaPattern, rsLora, dora, dropout }: LoraSettings, path: string): LayerSettings {
  const ownRank = patternValue('LoraOptions.rankPattern', rankPattern, path, rank);
  const ownAlpha = patternValue('LoraOptions.alphaPattern', alphaPattern, path, alpha);
  return { rank: ownRank, alpha: ownAlpha, scale: ownAlpha / (rsLora ? Math.sqrt(ownRank) : ownRank), dora, dropout };
}

/** Whether a value is a random stream, which plain JavaScript may leave out. */
export function isRng(value: unknown): value is Rng {
  return typeof value === 'object' && value !== null && typeof (value as Partial<Rng>).uniform === 'function';
}

/** @throws ArgumentError where it is not said where an adapter's first values come from */
export function checkInit(init: Init): void {
  if (!isRng(init) && init !== 'zeros' && !(typeof init === 'object' && init !== null && 'packed' in init)) throw new ArgumentError('LoraOptions.init', init, "an Rng, e.g. createRng(0), or 'zeros' where a file follows");
}

function checkPatterns(option: string, patterns: PathPatterns, check: (option: string, value: number) => void): void {
  for (const [pattern, value] of Object.entries(patterns)) {
    endPattern(option, pattern);
    check(`${option}[${JSON.stringify(pattern)}]`, value);
  }
}

function checkRank(option: string, rank: number): void {
  if (!Number.isInteger(rank) || rank < 1) throw new ArgumentError(option, rank, 'a positive integer');
}

function checkAlpha(option: string, alpha: number): void {
  if (!Number.isFinite(alpha)) throw new ArgumentError(option, alpha, 'a finite number');
}
