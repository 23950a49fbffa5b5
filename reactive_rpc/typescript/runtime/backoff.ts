/**
 * How long to wait before trying again: exponential, with full jitter.
 *
 * Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. A `retry:` of the server is a floor under it.
 * The twin of `reactive_rpc/client/backoff.py`.
 */

const BASE_MS = 250;
const CAP_MS = 15_000;
const MAX_DOUBLINGS = 16;
/** The longest `retry:` that is honoured: a wrong one must not end a stream for good. */
const MAX_FLOOR_MS = 60_000;

/** Delays of one thing that is tried again and again. */
export class Backoff {
  readonly #random: () => number;
  readonly #baseMs: number;
  readonly #capMs: number;
  #floorMs = 0;
  #failures = 0;

  constructor(random: () => number = Math.random, baseMs: number = BASE_MS, capMs: number = CAP_MS) {
    this.#random = random;
    this.#baseMs = baseMs;
    this.#capMs = capMs;
  }

  /** The least delay, as the server's `retry:` has it. */
  set floorMs(milliseconds: number) {
    this.#floorMs = Math.min(milliseconds, MAX_FLOOR_MS);
  }

  get floorMs(): number {
    return this.#floorMs;
  }

  /** Count a failure and return the milliseconds to wait: the floor, plus up to the doubled base or the cap. */
  nextDelay(): number {
    const ceiling = Math.min(this.#capMs, this.#baseMs * 2 ** this.#failures);
    this.#failures = Math.min(this.#failures + 1, MAX_DOUBLINGS);
    return this.#floorMs + this.#random() * ceiling;
  }

  /** Return the milliseconds to wait after a success has ended: between half the floor and all of it. */
  resumptionDelay(): number {
    return (this.#floorMs * (1 + this.#random())) / 2;
  }

  /** Start over from the base: it works again. */
  reset(): void {
    this.#failures = 0;
  }
}
