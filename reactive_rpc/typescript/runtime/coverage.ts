/**
 * What the first event of a stream says of one query that it watches: the rule by which a result is confirmed without a
 * fetch. Pure. `docs/internals/client.md`, "What a stream confirms", argues why; the twin of `_connect` in
 * `reactive_rpc/client/subscriptions.py`.
 */

import { newestOf, type Snapshot, type StreamAction } from './state.ts';
import { passes, type Version } from './versions.ts';

/** What `connected` says of one query. */
export interface Connection {
  /** The ETag that the stream was asked with; null if it was asked without. */
  readonly sentEtag: string | null;
  /** The server has found that the result with that ETag, or every result before the cursor, is not the one of now. */
  readonly isStale: boolean;
  /** Of what is watched and not stale, the results are as at this version; null if it names none. */
  readonly version: Version | null;
}

/** Return what has happened to a query, in order. */
export function connectedActions<T>(s: Snapshot<T>, { sentEtag, isStale, version }: Connection): StreamAction<T>[] {
  const newest = newestOf(s);
  const isCompared = sentEtag !== null && newest.etag === sentEtag;
  // INVARIANT (the ETag is believed before the version): if the server compared it and found it stale, it is.
  if (isStale && isCompared) return [{ type: 'invalidated', version: null }, { type: 'covered' }];
  if (passes(newest.version, version) || (isCompared && !isStale && isUndoubted(s))) {
    return [{ type: 'confirmed', version }];
  }
  return [{ type: 'invalidated', version }, { type: 'covered' }];
}

/** Tell whether nothing has been said against the newest outcome: it is current, or was restored and is unmentioned. */
function isUndoubted<T>(s: Snapshot<T>): boolean {
  // INVARIANT (no fetch runs): one that began before the server watched may bring a result from before.
  if (s.loading) return false;
  return s.current || (!s.resolved && s.invalidatedAt === undefined);
}
