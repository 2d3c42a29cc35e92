import { BackendError } from '@tinyfusion/core';

/**
 * Remembers what went wrong on a device. WebGPU reports errors after the fact, and what was computed meanwhile is zeros:
 * so every operation and every read asks here first.
 */
export class DeviceWatch {
  /** Nothing computed on the device can be trusted any more. */
  #fatal: string | undefined;
  /** An allocation that failed; the next smaller batch may fit. */
  #memory: string | undefined;

  readonly #lost: Promise<void>;

  constructor(device: GPUDevice) {
    device.addEventListener('uncapturederror', (event) => {
      event.preventDefault?.();
      // not all versions of WebGPU's types know the event
      const { error } = event as Event & { readonly error: GPUError };
      if (error.constructor.name === 'GPUOutOfMemoryError') this.#memory ??= error.message;
      else this.#fatal ??= `the WebGPU device reported an error, and results since then may be zeros: ${error.message}`;
    });
    this.#lost = device.lost.then(({ message, reason }) => {
      this.#fatal ??= `the WebGPU device was lost (${reason}${message === '' ? '' : `: ${message}`}). Call useBackend() to start anew; tensors of the old device are gone.`;
    });
  }

  /** Whether the device is of no use any more. */
  get failed(): boolean {
    return this.#fatal !== undefined;
  }

  /** Waits a moment for a loss that is on its way. */
  async settled(): Promise<void> {
    await Promise.race([this.#lost, new Promise((resolve) => setTimeout(resolve, 1000))]);
  }

  /** @throws BackendError where the device has reported an error; one for want of memory is reported once */
  check(): void {
    if (this.#fatal !== undefined) throw new BackendError(this.#fatal);
    if (this.#memory === undefined) return;
    const message = this.#memory;
    this.#memory = undefined;
    throw new BackendError(`the WebGPU device is out of memory; use a smaller batch, or weights as F16 or I8. It said: ${message}`);
  }
}
