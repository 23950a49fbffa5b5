// Listens for memos and invalidations, and prints a line for each and for each state of a connection.

import type * as client from '@trpc/client';
import { EventSource } from 'eventsource';

type Subscriber = Pick<ReturnType<typeof client.createTRPCUntypedClient>, 'subscription'>;

export function listen({ createTRPCUntypedClient, httpSubscriptionLink }: typeof client, url: string): void {
  const connectionParams = { authorization: 'Bearer ada' };
  const link = httpSubscriptionLink({ url, EventSource, connectionParams } as never);
  const listener: Subscriber = createTRPCUntypedClient({ links: [link] });
  const queries = [{ path: 'desk.memos', input: { desk: 'a' } }];
  for (const [path, input] of Object.entries({ 'desk.added': { desk: 'a' }, 'reactive.events': { queries } })) {
    listener.subscription(path, input, {
      onData: ({ data }: { data: { text?: string; type?: string; affected?: unknown[] } }) =>
        say(path, data.text ?? `${data.affected?.length} affected`),
      onConnectionStateChange: ({ state }: { state: string }) => say(path, state),
      onError: (error: Error) => say(path, `ended: ${error.message}`),
      onComplete: () => say(path, 'complete'),
    } as never);
  }
}

function say(path: string, what: string): void {
  process.stdout.write(`${path} ${what}\n`);
}
