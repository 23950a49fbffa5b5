import { readFileSync } from 'node:fs';

import { describe, expect, test } from 'vitest';

import { type Interval, type Page, PageList } from '../../../reactive_rpc/typescript/runtime/intervals.ts';
import { formatVersion, parseVersion } from '../../../reactive_rpc/typescript/runtime/versions.ts';

interface About {
  readonly at: number;
  readonly version: string | null;
  readonly upTo: string | null;
  readonly isCurrent: boolean;
}
type Do =
  | (About & Page<number> & { readonly t: 'answered' })
  | (About & { readonly t: 'told' })
  | { readonly t: 'settle' | 'join' | 'loadMore' | 'restart' };

interface Vector {
  readonly name: string;
  readonly limit: number;
  readonly steps: readonly { readonly do: Do; readonly then?: Partial<ReturnType<typeof seenOf>> }[];
}

/** The examples that both languages share, or games that another list has played. */
const FILE = process.env['REACTIVE_PAGE_VECTORS'] ?? new URL('../../vectors/pages.json', import.meta.url);
const { vectors } = JSON.parse(readFileSync(FILE, 'utf8')) as { readonly vectors: readonly Vector[] };

function act(list: PageList<number>, step: Do): void {
  if (step.t !== 'answered' && step.t !== 'told') return list[step.t]();
  const one = list.intervals[step.at];
  const page = step.t === 'told' ? one?.page : { items: step.items, next: step.next };
  if (one === undefined || page == null) throw new Error('only what has a page can be told to hold');
  one.take(page, parseVersion(step.version), parseVersion(step.upTo), step.isCurrent);
}

function rowsOf(pages: readonly Interval<number>[] | null): readonly number[] | null {
  return pages?.flatMap(({ page }) => page?.items ?? []) ?? null;
}

function seenOf(list: PageList<number>) {
  return {
    intervals: list.intervals.map(({ after, until }) => [after, until]),
    rows: rowsOf(list.fitting()),
    hurried: rowsOf(list.fitting(true)),
    behind: list.behind().map((one) => list.intervals.indexOf(one)),
    latest: list.latest && formatVersion(list.latest),
    hasMore: list.next != null,
    isLoadingMore: list.isLoadingMore,
  };
}

describe('a list in pages', () => {
  test.each(vectors)('$name', ({ limit, steps }) => {
    const list = new PageList<number>(limit);
    for (const [number, step] of steps.entries()) {
      act(list, step.do);
      expect(seenOf(list), `step ${number}: ${JSON.stringify(step.do)}`).toMatchObject(step.then ?? {});
    }
  });
});
