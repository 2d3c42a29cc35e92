/** Numbers that make a way of recovery; what `distill` of the recipes takes. */
export interface RecoveryVariant {
  /** What the paper calls it. */
  name: string;
  /** Weight of the teacher's output against the truth. */
  alpha: number;
  /** First weight of the feature loss. */
  beta: number;
  /** k of the mask; `Infinity` masks none. */
  sigmas: number;
  mode: 'official' | 'intersection';
}

const variant = (name: string, alpha: number, beta: number, sigmas: number, mode: RecoveryVariant['mode'] = 'official'): RecoveryVariant => ({ name, alpha, beta, sigmas, mode });

/** The rows of the paper's table 5, and the mask that its text describes. */
export const recoveryVariants: readonly RecoveryVariant[] = [
  variant('fine-tuning', 0, 0, Infinity),
  variant('output KD', 0.9, 0, Infinity),
  variant('RepKD', 0.9, 0.01, Infinity),
  variant('masked RepKD, 0.1 σ', 0.9, 0.01, 0.1),
  variant('masked RepKD, 2 σ', 0.9, 0.01, 2),
  variant('masked RepKD, 4 σ', 0.9, 0.01, 4),
  variant('masked RepKD, 2 σ, intersection', 0.9, 0.01, 2, 'intersection'),
];
