import { ArgumentError } from '@tinyfusion/core';

/**
 * Which tokens of each sample are masked, the same number in every sample, as MAR's encoder needs it. It lives on the
 * CPU: indices that are made of it are exact and never read back from a device.
 */
export class TokenMask {
  /** Samples N. */
  readonly samples: number;
  /** Tokens L of a sample. */
  readonly length: number;
  /** Masked tokens of each sample. */
  readonly maskedCount: number;

  /**
   * @param masked `[N · L]`, not 0 where a token is masked
   * @throws ArgumentError where samples have different numbers of masked tokens
   */
  constructor(
    samples: number,
    length: number,
    readonly masked: Uint8Array,
  ) {
    if (masked.length !== samples * length) throw new ArgumentError('TokenMask: masked.length', masked.length, `${samples} samples × ${length} tokens`);
    this.samples = samples;
    this.length = length;
    const counts = Array.from({ length: samples }, (_, n) => masked.subarray(n * length, (n + 1) * length).reduce((sum, m) => sum + (m === 0 ? 0 : 1), 0));
    this.maskedCount = counts[0] ?? 0;
    if (counts.some((c) => c !== this.maskedCount)) throw new ArgumentError('TokenMask: masked tokens of each sample', counts, 'the same number everywhere');
  }

  /**
   * The first `count` tokens of each sample's order are masked. Upstream: `mask_by_order`.
   * @param orders a permutation of 0 … L − 1 for each sample
   */
  static ofOrders(orders: readonly Int32Array[], count: number): TokenMask {
    const length = orders[0]!.length;
    const masked = new Uint8Array(orders.length * length);
    for (const [n, order] of orders.entries()) for (const token of order.subarray(0, count)) masked[n * length + token] = 1;
    return new TokenMask(orders.length, length, masked);
  }

  /** Rows of the masked tokens in a matrix of all samples' tokens, in raster order. */
  maskedRows(): Int32Array {
    return this.rows((m) => m !== 0, 0);
  }

  /**
   * Rows of the tokens that are kept in a matrix of all samples' tokens, each sample having `buffer` rows in front that
   * are always kept.
   */
  keptRows(buffer: number): Int32Array {
    return this.rows((m) => m === 0, buffer);
  }

  private rows(wanted: (masked: number) => boolean, buffer: number): Int32Array {
    const rows: number[] = [];
    const width = buffer + this.length;
    for (let n = 0; n < this.samples; n++) {
      for (let i = 0; i < buffer; i++) rows.push(n * width + i);
      for (let i = 0; i < this.length; i++) if (wanted(this.masked[n * this.length + i]!)) rows.push(n * width + buffer + i);
    }
    return Int32Array.from(rows);
  }
}
