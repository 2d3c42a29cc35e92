const marker = Symbol.for('tinyfusion.error');

/** What an error carries beside its message. */
export interface TinyFusionErrorOptions {
  /** The error that led to this one. */
  cause?: unknown;
}

/**
 * Base of every error this project throws on purpose. The message says what was expected, what came, where, and what
 * to do about it; `code` is stable and may be compared.
 */
export class TinyFusionError extends Error {
  override readonly name: string = 'TinyFusionError';
  /** Stable identifier, e.g. `'SHAPE'`. */
  readonly code: string;

  constructor(code: string, message: string, options: TinyFusionErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    Object.defineProperty(this, marker, { value: true });
  }

  /** Whether `value` is one of our errors, also across two copies of this package. */
  static isInstance(value: unknown): value is TinyFusionError {
    return typeof value === 'object' && value !== null && marker in value;
  }
}

/** An argument or option outside of what its documentation allows. Code `ARGUMENT`. */
export class ArgumentError extends TinyFusionError {
  override readonly name = 'ArgumentError';
  constructor(
    readonly argument: string,
    /** The offending value. */
    readonly value: unknown,
    expected: string,
  ) {
    super('ARGUMENT', `${argument} is ${value === undefined ? 'missing' : show(value)}, expected ${expected}`);
  }
}

/** A tensor whose shape is not the documented one. Code `SHAPE`. */
export class ShapeError extends TinyFusionError {
  override readonly name = 'ShapeError';
  constructor(
    readonly argument: string,
    readonly shape: readonly number[],
    readonly expected: string,
  ) {
    super('SHAPE', `${argument} has shape [${shape.join(', ')}], expected [${expected}]`);
  }
}

/** A checkpoint or data file that is broken, hostile, or not what was asked for. Code `CHECKPOINT`. */
export class CheckpointError extends TinyFusionError {
  override readonly name = 'CheckpointError';
  constructor(message: string, options: TinyFusionErrorOptions = {}) {
    super('CHECKPOINT', message, options);
  }
}

/** A data set that is missing, broken, or does not fit. Code `DATA`. */
export class DataError extends TinyFusionError {
  override readonly name = 'DataError';
  constructor(message: string, options: TinyFusionErrorOptions = {}) {
    super('DATA', message, options);
  }
}

/** A backend that cannot start, or cannot run what it is given. Code `BACKEND`. */
export class BackendError extends TinyFusionError {
  override readonly name = 'BackendError';
  constructor(message: string, options: TinyFusionErrorOptions = {}) {
    super('BACKEND', message, options);
  }
}

/** Thrown when an `AbortSignal` ends a long task. Code `CANCELLED`. */
export class CancelledError extends TinyFusionError {
  override readonly name = 'CancelledError';
  constructor(task: string) {
    super('CANCELLED', `${task} was cancelled`);
  }
}

/** Throws {@link CancelledError} when `signal` is aborted. */
export function throwIfCancelled(signal: AbortSignal | undefined, task: string): void {
  if (signal?.aborted === true) throw new CancelledError(task);
}

/** States a fact about our own code; a failure is a bug here, not at the caller. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (condition === false || condition === undefined || condition === null) throw new Error(`internal error, please report: ${message}`);
}

function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(show).join(', ')}]`;
  if (typeof value === 'object' && value !== null) return JSON.stringify(value);
  return String(value);
}
