import { queryClient, trpcClient } from './api.ts';

const { events } = trpcClient.reactive;

/** Fetch again what a commit has changed; returns what ends that. */
export function listen(queries: Parameters<typeof events.subscribe>[0]['queries']): () => void {
  const told = events.subscribe({ queries }, { onData: ({ data }) => void data.affected.map(fetchAgain) });
  return () => told.unsubscribe();
}

function fetchAgain({ path, input }: { path: string; input?: unknown }): Promise<void> {
  const queryKey = [path.split('.'), { ...(input != null && { input }), type: 'query' }];
  return queryClient.invalidateQueries({ queryKey });
}
