/** Messages that are on their way: they show at once, and a refusal gives the text back. */

import { useCallback, useSyncExternalStore } from 'react';

import {
  type Message,
  type messages,
  type Procedures,
  type QueuedUpdate,
  ReactiveError,
  type RejectedMutation,
} from '../../../generated_client/typescript/index.ts';
import { useReactiveClient } from './hub.ts';

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

let failed: readonly Failed[] = [];
const listeners = new Set<() => void>();

function become(next: readonly Failed[]): void {
  failed = next;
  for (const listener of [...listeners]) listener();
}

function fail(one: Failed): void {
  become([...failed.filter(({ id }) => id !== one.id), one]);
}

function listen(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Show a message that is not answered yet, in any tab and after a reload. */
export const showWaiting: QueuedUpdate<Procedures, 'messages.send'> = (input, on, { key, madeAt }) => {
  const { from_agent_id, to_agent_id = null, body } = input;
  const shown: Message = { id: PREFIX + key, from_agent_id, to_agent_id, body, created_at: madeAt };
  on('messages.get_all', { agent_id: from_agent_id }, (page) => ({ ...page, items: [shown, ...page.items] }));
};

/** Give a message back that was not taken, in each tab. */
export function tellRejected(mutation: RejectedMutation, error: ReactiveError): void {
  const { from_agent_id: from, to_agent_id, body } = mutation.input as messages.send_Input;
  const { key, madeAt: at } = mutation;
  fail({ id: PREFIX + key, key, from, to: to_agent_id ?? '', body, at, why: reasonOf(error) });
}

export function useSending(agentId: string) {
  const hub = useReactiveClient();
  const all = useSyncExternalStore(listen, () => failed);
  const discard = useCallback((id: string) => become(failed.filter((one) => one.id !== id)), []);
  const send = useCallback(
    async (outgoing: Outgoing): Promise<void> => {
      // To somebody else it is another message.
      const message = failed.some((one) => one.id === outgoing.id) ? again(outgoing, failed) : outgoing;
      discard(outgoing.id);
      const { from, to, body, key, at } = message;
      const input = { from_agent_id: from, to_agent_id: to || null, body };
      const about = { path: 'messages.send', input, key, madeAt: at } as const;
      try {
        await hub.call('messages.send', input, { key, optimistic: (on) => showWaiting(input, on, about) });
      } catch (thrown) {
        fail({ ...message, why: reasonOf(thrown) });
      }
    },
    [hub, discard],
  );
  return { failed: all.filter((one) => one.from === agentId), send, discard };
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
