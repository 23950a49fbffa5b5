/** Waiting: for the next task, and for a time. */

/**
 * Resolve in a task of its own, soon.
 *
 * By a MessageChannel: a hidden page's timers are a second late, later a minute; and a frozen page runs neither.
 */
export function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/** Resolve after a time, or at once when `signal` is aborted; never rejects. */
export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener('abort', end);
  });
}

/** A flag that can be waited for. */
export class Flag {
  #isSet = false;
  #wake: (() => void) | null = null;

  /** Set it, and let who waits go on. */
  set(): void {
    this.#isSet = true;
    this.#wake?.();
  }

  /** Resolve once it is set, and clear it. One waits at a time. */
  async wait(): Promise<void> {
    if (!this.#isSet) await new Promise<void>((resolve) => (this.#wake = resolve));
    this.#wake = null;
    this.#isSet = false;
  }
}
