/**
 * Versions: which of two results is the later.
 *
 * A server says of a result which version of its log it reflects, exactly (`reactive-version`). Versions of one epoch
 * are places in one history and compare by their number. Versions of two epochs do not compare, and none compares with
 * any. The twin of `reactive_rpc/client/versions.py`.
 */

/** A place in the history of a database. */
export interface Version {
  readonly epoch: string;
  readonly number: number;
}

const TEXT = /^([^:]{1,100}):(\d{1,20})(?:[:@].*)?$/;

/** Return the version that `text` spells, a cursor's too; null if it spells none, as nobody could compare it. */
export function parseVersion(text: string | null | undefined): Version | null {
  const [, epoch, digits] = TEXT.exec(text ?? '') ?? [];
  const number = Number(digits);
  // A number that JavaScript rounds would equal its neighbours.
  return epoch !== undefined && Number.isSafeInteger(number) ? { epoch, number } : null;
}

/** Return the text that `parseVersion` reads. */
export function formatVersion(version: Version): string {
  return `${version.epoch}:${version.number}`;
}

/** Tell whether it can be said which of the two is the later. */
export function isComparable(one: Version | null, other: Version | null): boolean {
  return one !== null && other !== null && one.epoch === other.epoch;
}

/** Tell whether a result at `one` surely shows all that `other` shows. */
export function passes(one: Version | null, other: Version | null): boolean {
  return one !== null && other !== null && one.epoch === other.epoch && one.number >= other.number;
}

/** Tell whether a result at `one` surely shows less than one at `other`. */
export function isOlder(one: Version | null, other: Version | null): boolean {
  return one !== null && other !== null && one.epoch === other.epoch && one.number < other.number;
}
