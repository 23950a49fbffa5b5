// The query of `servers.py` on tRPC's own server for Node, kept in a Map: `PORT=... node trpc_server.ts`.

import { initTRPC } from '@trpc/server';
import { createHTTPServer } from '@trpc/server/adapters/standalone';

const ROWS = [{ id: 1, room: 'a', text: 'x'.repeat(300) }];

const t = initTRPC.create();
const cache = new Map<string, typeof ROWS>();

const kept = (room: string) => {
  const found = cache.get(room);
  if (found !== undefined) return found;
  cache.set(room, ROWS);
  return ROWS;
};

const room = (input: unknown) => {
  if (typeof input === 'object' && input !== null && 'room' in input && typeof input.room === 'string') {
    return { room: input.room };
  }
  throw new TypeError('room is missing');
};

const router = t.router({
  notes: t.router({ get_all: t.procedure.input(room).query(({ input }) => kept(input.room)) }),
});

createHTTPServer({ router, basePath: '/trpc/' }).listen(Number(process.env['PORT']), '127.0.0.1');
