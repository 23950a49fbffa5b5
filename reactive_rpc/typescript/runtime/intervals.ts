/**
 * An endless list as intervals of keys that meet: which pages it is made of, and when they fit together. Pure.
 *
 * Each page is followed by itself, so each shows the truth of its own moment. INVARIANT (a row is never shown twice,
 * and never left out): what is shown is the pages of one version. `docs/internals/client.md` argues it.
 *
 * The twin of `reactive_rpc/client/page_list.py`; `tests/vectors/pages.json` are examples that both pass.
 */

import { passes, type Version } from './versions.ts';

/** A page of a list, as `keyset` makes it. */
export interface Page<T> {
  readonly items: readonly T[];
  /** Where it ends, for `after` of the next one; null if nothing follows. */
  readonly next: string | null;
}

/** Pages are joined if they have at most so many times the limit together: the server cuts what has more. */
const GROWTH = 2;

/** One page of the list: `(after, until]`, and the truth of it as far as that is known. */
export class Interval<T> {
  /** Where it begins; null: at the list's begin. */
  readonly after: string | null;
  /** Where it ends; null: it is the last one, and open. */
  readonly until: string | null;
  /** The newest answer; null before the first. */
  page: Page<T> | null = null;
  /** The version of the first answer that was this page; null if nobody can tell. */
  since: Version | null = null;
  /** A version at which it was this page still. */
  upTo: Version | null = null;
  /** Nobody has told of a change since. */
  isCurrent = false;
  /** It was rendered by a server, found in storage, or is of before a restart, and nobody has confirmed it yet. */
  isRestored = false;
  /** Its answer before was the list's end. */
  wasEnd = false;
  /** It was asked for beyond what is shown, so until it is there the rest is shown without it. */
  isExtra = false;
  /** Those whose rows it took over, until it is followed itself. */
  from: readonly Interval<T>[];

  constructor(after: string | null, until: string | null = null, from: readonly Interval<T>[] = []) {
    this.after = after;
    this.until = until;
    this.from = from;
  }

  /** How many rows it has. */
  get size(): number {
    return this.page?.items.length ?? 0;
  }

  /** Take in an answer of `version`, or that the one before still holds; it is known to hold up to `upTo`. */
  take(page: Page<T>, version: Version | null, upTo: Version | null, isCurrent: boolean): void {
    if (page !== this.page) {
      Object.assign(this, { page, since: version, upTo });
    } else if (!this.isCurrent && version !== null && !passes(this.upTo, version)) {
      // INVARIANT (it holds between `since` and `upTo`): somebody may have changed it, and changed it back.
      Object.assign(this, { since: version, upTo });
    } else if (upTo !== null && !passes(this.upTo, upTo)) this.upTo = upTo;
    this.isCurrent = isCurrent;
  }
}

/** The intervals of a list, from its begin to where it has been loaded. */
export class PageList<T> {
  readonly limit: number;
  intervals: readonly Interval<T>[] = [new Interval<T>(null)];

  constructor(limit: number) {
    this.limit = limit;
  }

  /** Where what is loaded ends; null at the list's end, undefined before anything is loaded. */
  get next(): string | null | undefined {
    return this.intervals.findLast((one) => one.page !== null)?.page?.next;
  }

  /** Whether a page that was asked for is not there yet. */
  get isLoadingMore(): boolean {
    return this.intervals.at(-1)?.isExtra ?? false;
  }

  /** Ask for the page that follows; nothing if one is under way, or if none follows. */
  loadMore(): void {
    const until = this.intervals.at(-1)?.until ?? null;
    if (until === null) return;
    const extra = new Interval<T>(until);
    extra.isExtra = true;
    this.intervals = [...this.intervals, extra];
  }

  /** Begin anew: the places of the list are no places any more. */
  restart(): void {
    this.intervals = [new Interval<T>(null)];
  }

  /** Close and split intervals by what their answers say. */
  settle(): void {
    this.intervals = this.intervals.flatMap((one) => partsOf(one));
  }

  /**
   * Join the first page that has become small to the smaller of its neighbours, if there is room for both.
   *
   * Nothing is joined before all is confirmed. Take `fitting` first: the joined page waits for an answer of its own.
   */
  join(): void {
    if (this.intervals.some((one) => one.page === null || !one.isCurrent)) return;
    for (const [place, one] of this.intervals.entries()) {
      if (one.until === null || one.size >= this.limit / GROWTH) continue;
      const pairs = [place - 1, place].flatMap((at) => this.#pairAt(at));
      const [pair] = pairs.sort((some, others) => some.size - others.size);
      if (pair === undefined) continue;
      const { at, first, second } = pair;
      const joined = new Interval(first.after, second.until, [first, second]);
      joined.wasEnd = second.wasEnd;
      this.intervals = this.intervals.toSpliced(at, 2, joined);
      return;
    }
  }

  /** Return the two intervals at a place, if there is room for the rows of both in one. */
  #pairAt(at: number): { at: number; first: Interval<T>; second: Interval<T>; size: number }[] {
    const [first, second] = at < 0 ? [] : this.intervals.slice(at, at + 2);
    if (first === undefined || second === undefined) return [];
    const size = first.size + second.size;
    const most = second.until === null ? this.limit : GROWTH * this.limit;
    return size <= most ? [{ at, first, second, size }] : [];
  }

  /**
   * Return the pages that are shown, if they are known to be those of one version; null otherwise.
   *
   * If `isHurried`, it suffices that nobody has told of a change in any of them.
   */
  fitting(isHurried = false): readonly Interval<T>[] | null {
    const shown = this.shown;
    if (shown.length === 0 || shown.some((one) => one.page === null)) return null;
    return fits(shown) || (isHurried && shown.every((one) => one.isCurrent)) ? shown : null;
  }

  /** All but the page that was asked for, and is not there yet. */
  get shown(): readonly Interval<T>[] {
    return this.intervals.filter((one) => !one.isExtra);
  }

  /** Return the pages of which it is to be asked whether they still hold at a version, so that all fit together. */
  behind(begin = this.latest): readonly Interval<T>[] {
    return begin === null ? [] : this.intervals.filter((one) => one.page !== null && !passes(one.upTo, begin));
  }

  /** The latest version at which a page began to hold; null if they do not compare. */
  get latest(): Version | null {
    return latestOf(this.intervals);
  }
}

/** Return what an interval becomes. */
function partsOf<T>(one: Interval<T>): Interval<T>[] {
  const { page } = one;
  // A restored page keeps its form: it may be so old that everything between its end and now would be loaded.
  if (page === null || one.isRestored) return [one];
  one.isExtra = false;
  if (page.next === one.until) {
    one.wasEnd = one.until === null;
    return [one];
  }
  // The answer is that of the interval which ends where it says, to the byte.
  const closed = new Interval(one.after, page.next, [one]);
  const { since, upTo, isCurrent } = one;
  Object.assign(closed, { page, since, upTo, isCurrent });
  if (one.until === null && !one.wasEnd) return [closed];
  // It has outgrown its limit; the rest was shown, and is until both are there.
  return [closed, new Interval(page.next, one.until, [one])];
}

function fits(shown: readonly Interval<unknown>[]): boolean {
  if (shown.length === 1) return true;
  const begin = latestOf(shown);
  // INVARIANT (one version at which all of them hold): each holds from `since` to `upTo`, so all do at the latest
  // `since` that none has ended before.
  return begin === null ? shown.every((one) => one.isCurrent) : shown.every((one) => passes(one.upTo, begin));
}

/** Return the latest version at which one of these began to hold; null if they do not compare. */
export function latestOf(intervals: readonly Interval<unknown>[]): Version | null {
  const begins = intervals.flatMap((one) => (one.page === null ? [] : [one.since]));
  if (begins.length === 0) return null;
  const [latest] = begins.filter((one) => begins.every((other) => passes(one, other)));
  return latest ?? null;
}
