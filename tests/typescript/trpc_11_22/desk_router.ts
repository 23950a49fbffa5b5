// The router of tests/integration/trpc/desk.py, as far as `hooks.ts` calls it: tRPC's own, for its types alone.

import { initTRPC, type TrackedEnvelope } from '@trpc/server';

export interface Memo {
  id: number;
  desk: string;
  text: string;
  author: string;
}

interface Affected {
  type: string;
  affected: { path: string; input?: unknown }[];
}

const t = initTRPC.create();
const given =
  <T>() =>
  (value: unknown) =>
    value as T;

function elsewhere(): never {
  throw new Error('this router is served by Python');
}

async function* events<T>(): AsyncGenerator<TrackedEnvelope<T>> {
  yield elsewhere();
}

const router = t.router({
  desk: t.router({
    whoami: t.procedure.query((): string => elsewhere()),
    memos: t.procedure.input(given<{ desk: string }>()).query((): Memo[] => elsewhere()),
    one: t.procedure.input(given<{ id: number }>()).query((): Memo => elsewhere()),
    add: t.procedure.input(given<{ desk: string; text: string }>()).mutation((): Memo => elsewhere()),
    added: t.procedure.input(given<{ desk: string; lastEventId?: string | null }>()).subscription(() => events<Memo>()),
  }),
  reactive: t.router({
    events: t.procedure
      .input(given<{ queries: { path: string; input?: unknown }[]; lastEventId?: string | null }>())
      .subscription(() => events<Affected>()),
  }),
});

export type DeskRouter = typeof router;
