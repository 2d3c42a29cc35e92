/** Width of a step of the integral below; its error falls as e^(−π²/step) and is far below float64's. */
const STEP = 0.25;

/**
 * Probability of each item to be among the k highest of logit + Gumbel noise: of its inclusion where k items are drawn one
 * after the other without replacement, in proportion to exp(logit) (Plackett–Luce). Exact: for each item the integral over
 * its perturbed value s of the Gumbel density times P(fewer than k others lie above s), the others being independent.
 *
 * @returns one a logit; they add up to k
 */
export function topKInclusion(logits: readonly number[], k: number): number[] {
  if (k >= logits.length) return logits.map(() => 1);
  return logits.map((own, i) => {
    let total = 0;
    for (let z = -5; z < 40; z += STEP) {
      const density = Math.exp(-z - Math.exp(-z));
      if (density > 0) total += STEP * density * fewerThan(k, above(logits, i, own + z));
    }
    return Math.min(1, total);
  });
}

/** P(logit + Gumbel noise > s) of every item but one. */
function above(logits: readonly number[], left: number, s: number): number[] {
  return logits.filter((_, j) => j !== left).map((logit) => -Math.expm1(-Math.exp(logit - s)));
}

/** P(fewer than k of independent events happen). */
function fewerThan(k: number, probabilities: readonly number[]): number {
  const counts = Array.from({ length: k }, (_, n) => Number(n === 0)); // P(n so far)
  for (const p of probabilities) for (let n = k - 1; n >= 0; n--) counts[n] = counts[n]! * (1 - p) + (n > 0 ? counts[n - 1]! * p : 0);
  return counts.reduce((a, b) => a + b, 0);
}
