import { expect, test } from 'vitest';

import { type Named, procedureNames, queryKeyOf, queryNameOf } from '../../../reactive_rpc/typescript/runtime/keys.ts';

interface Tree {
  readonly agents: { readonly get_one: Named<'agents.get_one'>; readonly toString: Named<'agents.toString'> };
  readonly ping: Named<'ping'>;
}

const api = procedureNames<Tree>();

test('a name is its path, in any router, whatever it is called', () => {
  expect([api.agents.get_one, api.ping, api.agents.toString].map(String)).toEqual([
    'agents.get_one',
    'ping',
    'agents.toString',
  ]);
});

test('a name is no promise, and nothing to go through', async () => {
  expect(await Promise.resolve(api.ping).then(String)).toBe('ping');
  expect(() => [...(api.ping as unknown as Iterable<unknown>)]).toThrow(TypeError);
});

test.each([{ agent_id: 'a' }, null, 5, undefined])('a key names the query with the input %j again', (input) => {
  const name = { path: 'agents.get_one', input };
  expect(queryNameOf(queryKeyOf(name))).toEqual(name);
});

test.each([[['todos']], [[[]]], [[['agents', 1]]], [[['agents'], 5]], [[['agents'], { type: 'infinite' }]]])(
  '%j is the key of no query',
  (key) => {
    expect(queryNameOf(key)).toBeNull();
  },
);
