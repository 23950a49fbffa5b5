/** What the generated client and its hooks accept and refuse: each wrong line is an error, and each right one is none. */

import {
  type Agent,
  api,
  createReactive,
  type Decimal,
  type State,
} from '../../../generated_client/typescript/index.ts';
import {
  skip,
  useReactive,
  useReactiveMutation,
  useReactivePriorities,
} from '../../../generated_client/typescript/react.ts';
import { live } from '../../../generated_client/typescript/svelte.ts';
import { type Equal, holds } from './equality.ts';

declare const agentId: string | undefined;
const reactive = createReactive({ url: '/' });
const agent_id = 'a1';

// A procedure is named by its path, or by `api`, which has its description.
const byPath = reactive.query('agents.get_one', { agent_id });
const byName = reactive.query(api.agents.get_one, { agent_id });
holds<Equal<typeof byPath, typeof byName>>();
holds<Equal<typeof byName.state.data, Agent | undefined>>();
holds<Equal<Agent['created_at'], Date>>();
reactive.query(api.agents.get_all);
// @ts-expect-error no such procedure
api.agents.get_on;
// @ts-expect-error a mutation is no query
reactive.query(api.agents.update, { agent_id });
// @ts-expect-error it needs an input
reactive.query(api.agents.get_one);
// @ts-expect-error of another type
reactive.query(api.agents.get_one, { agent_id: 1 });
// @ts-expect-error a query is no mutation
reactive.call('agents.get_one', { agent_id });

createReactive({ url: '/', storage: 'session', persist: { memory: false, 'memory.recent': true } });
// @ts-expect-error no such namespace: what it should not keep would be kept
createReactive({ url: '/', persist: { memories: false } });
// @ts-expect-error a mutation's results are not kept
createReactive({ url: '/', persist: { 'agents.update': false } });
// @ts-expect-error no such storage
createReactive({ url: '/', storage: 'disk' });

export async function rename(): Promise<string> {
  const { name } = await reactive.call(api.agents.update, { agent_id, name: 'Ada' });
  return name;
}

export function Shown(): string | undefined {
  const shown = useReactive(api.agents.get_one, agentId === undefined ? skip : { agent_id: agentId });
  holds<Equal<typeof shown.data, Agent | undefined>>();
  holds<Equal<typeof shown, State<Agent>>>();
  const suspended = useReactive('agents.get_one', { agent_id }, { suspense: true });
  holds<Equal<typeof suspended.data, Agent>>();
  // @ts-expect-error no such field
  useReactive(api.agents.get_one, { agentId });
  useReactivePriorities([[api.agents.get_one, { agent_id }], ['agents.get_all']]);
  // @ts-expect-error it needs an input
  useReactivePriorities([['agents.get_one']]);
  // @ts-expect-error of another type
  useReactivePriorities([['agents.get_one', { agent_id: 1 }]]);
  const { mutate } = useReactiveMutation(api.agents.update, {
    optimistic: (input, on) =>
      on(api.agents.get_one, { agent_id: input.agent_id }, (one) => ({ ...one, name: input.name ?? one.name })),
  });
  void mutate({ agent_id, name: 'Ada' });
  // @ts-expect-error it needs an input
  void mutate({});
  return suspended.data.name;
}

export const inSvelte = live(reactive, api.agents.get_one, () => ({ agent_id })).data?.name;
export type Price = Decimal;
