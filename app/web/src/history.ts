/** The messages of an agent, as far back as somebody has read. */

import { useCallback, useRef, useState } from 'react';

import { type Message, useReactive } from './hub.ts';

const PAGE = 20;
const MOST = 200;

export interface History {
  /** Oldest first; undefined until there are some. */
  readonly rows: readonly Message[] | undefined;
  readonly hasMore: boolean;
  readonly isLoadingMore: boolean;
  readonly loadMore: () => void;
  readonly isStale: boolean;
  readonly error: Error | null;
  /** Which query shows them now. */
  readonly optimistic: { readonly agent_id: string; readonly limit: number };
}

export function useHistory(agentId: string): History {
  const [limit, setLimit] = useState(PAGE);
  const input = { agent_id: agentId, limit };
  const { data, isStale, error } = useReactive('messages.get_all', input);
  const shown = useRef(data);
  if (data !== undefined) shown.current = data;
  const page = data ?? shown.current;
  return {
    rows: page?.items.toReversed(),
    hasMore: page !== undefined && page.next !== null && limit < MOST,
    isLoadingMore: data === undefined,
    loadMore: useCallback(() => setLimit((now) => Math.min(now + PAGE, MOST)), []),
    isStale,
    error,
    optimistic: input,
  };
}
