/** The client of TeamHub, and what the page does with it. */

import {
  createReactive,
  type Message,
  type Procedures,
  type Reactive,
} from '../../../generated_client/typescript/index.ts';
import type { Session } from './session.ts';

export type Hub = Reactive<Procedures>;

export { live, liveInfinite, liveStatus } from '../../../generated_client/typescript/svelte.ts';

const SENDING = 'sending-';

/** Return the client of somebody; what the server no longer takes ends their session. */
export function openHub({ email, token }: Session, onUnauthorized: () => void): Hub {
  return createReactive({
    url: '/',
    identity: email,
    credentials: () => ({ authorization: `Bearer ${token}` }),
    onUnauthorized,
  });
}

/** Send a message to everybody: it shows at once, and leaves again if the server refuses it. */
export async function send(hub: Hub, agentId: string, body: string): Promise<void> {
  const shown: Message = {
    id: `${SENDING}${crypto.randomUUID()}`,
    from_agent_id: agentId,
    to_agent_id: null,
    body,
    created_at: new Date(),
  };
  await hub.call(
    'messages.send',
    { from_agent_id: agentId, body },
    {
      optimistic: (on) =>
        on('messages.get_all', { agent_id: agentId }, (page) => ({ ...page, items: [shown, ...page.items] })),
    },
  );
}

/** Tell whether the server has not answered yet. */
export function isSending(message: Message): boolean {
  return message.id.startsWith(SENDING);
}
