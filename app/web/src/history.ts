/** The messages of an agent, as far back as somebody has read. */

import { useMemo } from 'react';

import { type Message, useReactiveInfinite } from './hub.ts';

const PAGE = 30;

export interface History {
  /** Oldest first; undefined until there are some. */
  readonly rows: readonly Message[] | undefined;
  readonly hasMore: boolean;
  readonly isLoadingMore: boolean;
  readonly loadMore: () => void;
}

export function useHistory(agentId: string): History {
  const { rows, ...about } = useReactiveInfinite('messages.get_all', { agent_id: agentId }, { limit: PAGE });
  return { rows: useMemo(() => rows?.toReversed(), [rows]), ...about };
}
