/** Work that can wait, a few pieces at a time: first what was asked for first. */

import { nextTask } from './tasks.ts';

/** How many requests of those that can wait are under way at once: as many connections stay for what is shown. */
const AT_ONCE = 3;

export class Turns {
  readonly #run: (key: string) => Promise<void>;
  readonly #waiting = new Set<string>();
  #running = 0;

  /** @param run Does one piece; never rejects. */
  constructor(run: (key: string) => Promise<void>) {
    this.#run = run;
  }

  /** Have a piece of work done; once, however often it is asked for before its turn. */
  add(key: string): void {
    this.#waiting.add(key);
    // In a task of its own: what is shown in the same turn of the page is asked for first.
    void nextTask().then(() => this.#next());
  }

  #next(): void {
    while (this.#running < AT_ONCE) {
      const [key] = this.#waiting;
      if (key === undefined) return;
      this.#waiting.delete(key);
      void this.#turn(key);
    }
  }

  async #turn(key: string): Promise<void> {
    this.#running += 1;
    await this.#run(key);
    this.#running -= 1;
    this.#next();
  }
}
