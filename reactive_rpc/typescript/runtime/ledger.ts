/**
 * What every tab notes of the queries of all: which are wanted, and of which result the stream has said that it is the
 * truth. So each can lead at once, and who leads can tell a new tab how its results stand, without a request. Pure.
 */

import type { News, SharedResult, WatchedQuery } from './streams.ts';
import { parseVersion, passes } from './versions.ts';

export class Ledger {
  readonly #sets = new Map<string, readonly WatchedQuery[]>();
  /** ETags of results that are the truth up to the cursor, and whose end the stream would say. */
  readonly #truths = new Map<string, string>();
  #covered: ReadonlySet<string> = new Set();
  #cursor: string | null = null;
  /** Whose stream it is, as the server names its callers. */
  #scope: string | null = null;

  /** Up to where the stream has said everything. */
  get cursor(): string | null {
    return this.#cursor;
  }

  /** The other tabs that want something. */
  get tabs(): readonly string[] {
    return [...this.#sets.keys()];
  }

  /** Note what another tab wants. */
  want(tab: string, queries: readonly WatchedQuery[]): void {
    this.#sets.set(tab, queries);
  }

  /** Forget a tab that is gone. */
  drop(tab: string): void {
    this.#sets.delete(tab);
  }

  /** Note what the stream says. */
  hear(news: News): void {
    if ('cursor' in news) this.#cursor = news.cursor;
    switch (news.type) {
      case 'connected':
        this.#scope = news.scope;
        this.#covered = new Set(news.queries.filter(({ error }) => error === null).map(({ key }) => key));
        this.#truths.clear();
        for (const { key, sentEtag, isStale, error } of news.queries) {
          if (sentEtag !== null && !isStale && error === null) this.#truths.set(key, sentEtag);
        }
        break;
      case 'invalidated':
        for (const key of news.keys) this.#truths.delete(key);
        break;
      case 'pushed':
        for (const key of news.keys) this.#truths.set(key, news.etag);
        break;
      case 'gap':
        this.#truths.clear();
        break;
      case 'alive':
        break;
      default:
        this.#covered = new Set();
    }
  }

  /** Note what a tab has fetched. */
  share({ key, etag, version }: SharedResult): void {
    // INVARIANT (not below the cursor): else what the stream has said since may concern it.
    if (passes(version, parseVersion(this.#cursor))) this.#truths.set(key, etag);
  }

  /** Return what all tabs want, `own` included, each with the ETag that is most likely the newest. */
  union(own: readonly WatchedQuery[]): WatchedQuery[] {
    const all = new Map<string, WatchedQuery>();
    for (const query of [...own, ...[...this.#sets.values()].flat()]) {
      const etag = this.#truths.get(query.key) ?? all.get(query.key)?.etag ?? query.etag;
      all.set(query.key, { ...query, etag });
    }
    return [...all.values()];
  }

  /** Return how those of the queries stand that the stream watches already, as `connected` would say it. */
  standing(queries: readonly WatchedQuery[]): News | null {
    const cursor = this.#cursor;
    const watched = queries.filter(({ key }) => this.#covered.has(key));
    if (cursor === null || watched.length === 0) return null;
    const standings = watched.map(({ key }) => {
      const sentEtag = this.#truths.get(key) ?? null;
      return { key, sentEtag, isStale: sentEtag === null, error: null };
    });
    const version = parseVersion(cursor);
    return { type: 'connected', cursor, version, scope: this.#scope, queries: standings, isPartial: true };
  }
}
