/**
 * In JSON, a whole number that a number of JavaScript cannot hold, beyond 2^53. `JSON.stringify` spells it as text, which
 * a server reads as a number.
 */
export class Digits {
  readonly text: string;
  readonly #isBesideText: boolean;

  /** Beside text, where it would arrive as text, it is refused when it is sent. */
  constructor(text: string, isBesideText = false) {
    this.text = text;
    this.#isBesideText = isBesideText;
  }

  toJSON(): string {
    if (!this.#isBesideText) return this.text;
    throw new TypeError(`${this.text} would arrive as text`);
  }

  toString(): string {
    return this.text;
  }
}

/** Return the integer as JSON: a number, or its digits. */
export function integer(value: bigint, isBesideText = false): number | Digits {
  const rounded = Number(value);
  return Number.isSafeInteger(rounded) ? rounded : new Digits(value.toString(), isBesideText);
}
