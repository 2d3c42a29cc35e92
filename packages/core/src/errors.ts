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

  /** Whether `value` is one of our errors, also across two copies of this package; subclasses ask for one of theirs. */
  static isInstance(value: unknown): value is TinyFusionError {
    return typeof value === 'object' && value !== null && marker in value;
  }
}

const hasCode = (value: unknown, code: string): boolean => TinyFusionError.isInstance(value) && value.code === code;

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

  /** Whether `value` is one, also across two copies of this package. */
  static override isInstance(value: unknown): value is ArgumentError {
    return hasCode(value, 'ARGUMENT');
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

  /** Whether `value` is one, also across two copies of this package. */
  static override isInstance(value: unknown): value is ShapeError {
    return hasCode(value, 'SHAPE');
  }
}

/** A checkpoint or data file that is broken, hostile, or not what was asked for. Code `CHECKPOINT`. */
export class CheckpointError extends TinyFusionError {
  override readonly name = 'CheckpointError';
  constructor(message: string, options: TinyFusionErrorOptions = {}) {
    super('CHECKPOINT', message, options);
  }

  /** Whether `value` is one, also across two copies of this package. */
  static override isInstance(value: unknown): value is CheckpointError {
    return hasCode(value, 'CHECKPOINT');
  }
}

/** A data set that is missing, broken, or does not fit. Code `DATA`. */
export class DataError extends TinyFusionError {
  override readonly name = 'DataError';
  constructor(message: string, options: TinyFusionErrorOptions = {}) {
    super('DATA', message, options);
  }

  /** Whether `value` is one, also across two copies of this package. */
  static override isInstance(value: unknown): value is DataError {
    return hasCode(value, 'DATA');
  }
}

/** A backend that cannot start, or cannot run what it is given. Code `BACKEND`. */
export class BackendError extends TinyFusionError {
  override readonly name = 'BackendError';
  constructor(message: string, options: TinyFusionErrorOptions = {}) {
    super('BACKEND', message, options);
  }

  /** Whether `value` is one, also across two copies of this package. */
  static override isInstance(value: unknown): value is BackendError {
    return hasCode(value, 'BACKEND');
  }
}

/** Thrown when an `AbortSignal` ends a long task. Code `CANCELLED`. */
export class CancelledError extends TinyFusionError {
  override readonly name = 'CancelledError';
  constructor(task: string) {
    super('CANCELLED', `${task} was cancelled`);
  }

  /** Whether `value` is one, also across two copies of this package. */
  static override isInstance(value: unknown): value is CancelledError {
    return hasCode(value, 'CANCELLED');
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

/** A value as a message has it; never throws. @param within what it lies in */
function show(value: unknown, within: readonly unknown[] = []): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value !== 'object' || value === null) return String(value);
  if (Array.isArray(value)) return within.includes(value) ? '…' : `[${value.map((item) => show(item, [...within, value])).join(', ')}]`;
  try {
    return JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? `${item}n` : item)) ?? Object.prototype.toString.call(value);
  } catch {
    return Object.prototype.toString.call(value); // it contains itself, or cannot be read
  }
}
