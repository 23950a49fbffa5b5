/** Messages that are on their way: they show at once, and a refusal gives the text back. */

import { useCallback, useState } from 'react';

import { type Message, ReactiveError, useReactiveClient } from './hub.ts';

/** What somebody has written. */
export interface Outgoing {
  readonly id: string;
  /** The same text sent again is the same message, should the first one have arrived after all. */
  readonly key: string;
  readonly from: string;
  /** An agent, or the empty string for all. */
  readonly to: string;
  readonly body: string;
  readonly at: Date;
}

export interface Failed extends Outgoing {
  readonly why: 'receiver' | 'connection' | 'other';
}

const PREFIX = 'sending-';

/** Tell whether the server has not answered yet. */
export function isSending(message: Message): boolean {
  return message.id.startsWith(PREFIX);
}

export function newOutgoing(from: string, to: string, body: string): Outgoing {
  const key = crypto.randomUUID();
  return { id: `${PREFIX}${key}`, key, from, to, body, at: new Date() };
}

export function useSending(agentId: string) {
  const hub = useReactiveClient();
  const [failed, setFailed] = useState<readonly Failed[]>([]);
  const discard = useCallback((id: string) => setFailed((all) => all.filter((one) => one.id !== id)), []);
  const send = useCallback(
    async (outgoing: Outgoing): Promise<void> => {
      // To somebody else it is another message.
      const message = failed.some((one) => one.id === outgoing.id) ? again(outgoing, failed) : outgoing;
      discard(outgoing.id);
      const { from, to, body, key, id, at } = message;
      const shown: Message = { id, from_agent_id: from, to_agent_id: to || null, body, created_at: at };
      try {
        await hub.call(
          'messages.send',
          { from_agent_id: from, to_agent_id: to || null, body },
          {
            key,
            optimistic: (on) =>
              on('messages.get_all', { agent_id: from }, (page) => ({ ...page, items: [shown, ...page.items] })),
          },
        );
      } catch (thrown) {
        setFailed((all) => [...all, { ...message, why: reasonOf(thrown) }]);
      }
    },
    [hub, failed, discard],
  );
  return { failed: failed.filter((one) => one.from === agentId), send, discard };
}

function again(outgoing: Outgoing, failed: readonly Failed[]): Outgoing {
  const before = failed.find((one) => one.id === outgoing.id);
  return before?.to === outgoing.to ? outgoing : newOutgoing(outgoing.from, outgoing.to, outgoing.body);
}

function reasonOf(thrown: unknown): Failed['why'] {
  if (!(thrown instanceof ReactiveError)) return 'other';
  if (thrown.code === 'NOT_FOUND') return 'receiver';
  return thrown.isTransient ? 'connection' : 'other';
}
