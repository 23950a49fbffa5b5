import { type DehydratedState, hydrate } from '@tanstack/query-core';

import { createReactive, dehydrateReactive } from './client/index.ts';

type Client = ReturnType<typeof createReactive>;

let ofPage: Client | undefined;

/** The client that components use: one for the whole page; on the server, another one for each request. */
export function reactiveOfPage(): Client {
  if (typeof document === 'undefined') return createReactive({ url: '/', storage: 'none', transport: 'off' });
  ofPage ??= createReactive({ url: '/' });
  return ofPage;
}

/** Ask for what a page shows, as the caller whose headers these are, and return it for `show`. */
export async function render(headers: Headers, ask: (reactive: Client) => Promise<unknown>): Promise<DehydratedState> {
  const reactive = createReactive({
    url: process.env['API_URL'] ?? 'http://127.0.0.1:8000',
    storage: 'none',
    transport: 'off',
    credentials: () => ({ cookie: headers.get('cookie') ?? '' }),
  });
  try {
    await ask(reactive);
    return dehydrateReactive(reactive);
  } finally {
    reactive.close();
  }
}

/** Show what the server has rendered; of a query that the page has already, it knows better. */
export function show({ client }: Client, { queries, mutations }: DehydratedState): void {
  const isNew = ({ queryHash }: { readonly queryHash: string }): boolean =>
    client.getQueryCache().get(queryHash) === undefined;
  hydrate(client, { mutations, queries: queries.filter(isNew) });
}
