/** What lists in pages accept and refuse: each wrong line is an error, and each right one is none. */

import {
  api,
  createReactive,
  infinite,
  type Message,
  type PagesState,
} from '../../../generated_client/typescript/index.ts';
import { skip, useReactiveInfinite } from '../../../generated_client/typescript/react.ts';
import { liveInfinite } from '../../../generated_client/typescript/svelte.ts';
import { type Equal, holds } from './equality.ts';

declare const agentId: string | undefined;
const reactive = createReactive({ url: '/' });
const agent_id = 'a1';

const list = infinite(reactive, 'messages.get_all', { agent_id }, { limit: 50 });
holds<Equal<typeof list.state, PagesState<Message>>>();
holds<Equal<typeof list.state.rows, readonly Message[] | undefined>>();
const byName = infinite(reactive, api.messages.get_all, { agent_id }, { limit: 50 });
holds<Equal<typeof byName, typeof list>>();
// @ts-expect-error its result is no page
infinite(reactive, 'agents.get_all', {}, { limit: 50 });
// @ts-expect-error no such procedure
infinite(reactive, 'messages.get_some', { agent_id }, { limit: 50 });
// @ts-expect-error it needs an input
infinite(reactive, 'messages.get_all', {}, { limit: 50 });
// @ts-expect-error a list has no place
infinite(reactive, 'messages.get_all', { agent_id, after: 'x' }, { limit: 50 });
// @ts-expect-error how many rows a page has must be said
infinite(reactive, 'messages.get_all', { agent_id });

export function Messages(): number {
  const shown = useReactiveInfinite('messages.get_all', agentId === undefined ? skip : { agent_id: agentId }, {
    limit: 50,
  });
  holds<Equal<typeof shown, PagesState<Message>>>();
  // @ts-expect-error its result is no page
  useReactiveInfinite('agents.get_all', {}, { limit: 50 });
  return shown.rows?.length ?? 0;
}

const live = liveInfinite(reactive, 'messages.get_all', () => ({ agent_id }), { limit: 50 });
holds<Equal<typeof live, PagesState<Message>>>();
// @ts-expect-error its input is a function, which may read state
liveInfinite(reactive, 'messages.get_all', { agent_id }, { limit: 50 });

// An own mutation shows in the list as in one page.
export function send(draft: Message): void {
  void reactive.call(
    'messages.send',
    { from_agent_id: agent_id, body: draft.body },
    { optimistic: (on) => on('messages.get_all', { agent_id }, (all) => ({ ...all, items: [draft, ...all.items] })) },
  );
}
