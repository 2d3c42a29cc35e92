import type { Begun } from './binding.js';

/** How long it looks again at once before it sleeps between looks, ms: ranks of a step are seldom further apart. */
const EAGER = 50;
/** Looks in a row after each sleep. */
const LOOKS = 64;

interface Waiting {
  begun: Begun;
  resolve: () => void;
  reject: (error: unknown) => void;
}

/** Drives begun calls on between turns of the event loop, so that timers, signals and reads go on meanwhile. */
export class ProgressLoop {
  readonly #waiting = new Set<Waiting>();
  #since = 0;
  #running = false;

  /** Settles when the call is over. */
  finish(begun: Begun): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.add({ begun, resolve, reject });
      this.#since = performance.now();
      if (this.#running) return;
      this.#running = true;
      this.#look();
    });
  }

  #look(): void {
    const eager = performance.now() - this.#since < EAGER;
    for (let looks = eager ? 1 : LOOKS; looks > 0; looks--) if (this.#test()) this.#since = performance.now();
    if (this.#waiting.size === 0) this.#running = false;
    else if (eager) setImmediate(() => this.#look());
    else setTimeout(() => this.#look(), 1);
  }

  /** Whether any call has ended. */
  #test(): boolean {
    const before = this.#waiting.size;
    for (const one of this.#waiting) {
      try {
        if (!one.begun.done()) continue;
        one.resolve();
      } catch (error) {
        one.reject(error);
      }
      this.#waiting.delete(one);
    }
    return this.#waiting.size < before;
  }
}
