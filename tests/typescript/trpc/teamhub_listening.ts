// Listens to a new agent's messages and to changes of the list of agents: node teamhub_listening.ts URL EMAIL PASSWORD.
// Prints the id of the agent, and then a line for each message, each list that it fetches, and each state of a stream.

import * as newest from '@trpc/client';

import { clientOf, logIn } from './teamhub.ts';

const [url = '', email = '', password = ''] = process.argv.slice(2);
const client = clientOf(newest, url, await logIn(url, email, password));

function say(what: string): void {
  process.stdout.write(`${what}\n`);
}

async function fetchAgain(): Promise<void> {
  const found = await client.agents.get_all.query().catch(() => []);
  say(`agents ${found.map(({ name }) => name).filter((name) => name.startsWith('New'))}`);
}

const { id } = await client.agents.create.mutate({ name: 'New' });
say(id);
client.messages.events.subscribe(
  { agent_id: id },
  {
    onData: ({ data }) => say(`message ${data.body}`),
    onConnectionStateChange: ({ state }) => say(`messages ${state}`),
    onError: ({ message }) => say(`ended ${message}`),
  },
);
client.reactive.events.subscribe(
  { queries: [{ path: 'agents.get_all' }] },
  {
    onData: ({ data }) => void data.affected.map(fetchAgain),
    onConnectionStateChange: ({ state }) => say(`changes ${state}`),
    onError: ({ message }) => say(`ended ${message}`),
  },
);
