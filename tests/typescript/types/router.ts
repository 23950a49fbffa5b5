/** `AppRouter` under tRPC's own client: values are JSON, and everything is inferred. */
import {
  createTRPCClient,
  httpBatchStreamLink,
  httpLink,
  httpSubscriptionLink,
  splitLink,
  type TRPCClientError,
} from '@trpc/client';
import type { inferProcedureErrorShape, inferRouterInputs, inferRouterOutputs } from '@trpc/server';
import superjson from 'superjson';
import type { AppRouter, Json, PageSeat, Procedures, Routes, SuperjsonRouter } from '../../codegen/theatre.ts';
import { type Equal, holds } from './equality.ts';

type Flat<T> = T extends unknown ? { [Key in keyof T]: T[Key] } : never;

const client = createTRPCClient<AppRouter>({
  links: [
    splitLink({
      condition: (op) => op.type === 'subscription',
      true: httpSubscriptionLink({ url: '/trpc' }),
      false: httpBatchStreamLink({ url: '/trpc' }),
    }),
  ],
});
createTRPCClient<AppRouter>({
  // @ts-expect-error the router has no transformer
  links: [httpLink({ url: '/trpc', transformer: { serialize: String, deserialize: String } })],
});

// With superjson, values are those of the generated client.
const withValues = createTRPCClient<SuperjsonRouter>({ links: [httpLink({ url: '/trpc', transformer: superjson })] });
createTRPCClient<SuperjsonRouter>({
  // @ts-expect-error the router has a transformer
  links: [httpLink({ url: '/trpc' })],
});

export async function values() {
  const seat = await withValues.seats.get_one.query({ seat_id: 'a' });
  holds<Equal<typeof seat, Procedures['seats.get_one']['output']>>();
  const now = await withValues.time.now.query();
  holds<Equal<typeof now, Date>>();
  await withValues.seats.get_all.query({ since: new Date() });
  // @ts-expect-error a moment is a Date
  await withValues.seats.get_all.query({ since: '2026-01-02T03:04:05Z' });
}

export async function queries() {
  const now = await client.time.now.query();
  holds<Equal<typeof now, string>>();
  const page = await client.seats.get_all.query();
  holds<Equal<Flat<(typeof page.items)[number]>['tags'], string[]>>();
  holds<Equal<(typeof page.items)[number]['rank'], 'stalls' | 'circle'>>();
  holds<Equal<typeof page.next, PageSeat['next']>>();
  await client.seats.get_all.query({ since: '2026-01-02T03:04:05Z', rank: 'circle' });
  const one = await client.seats.get_one.query({ seat_id: 'a' });
  holds<Equal<typeof one extends null ? never : 'sold' extends keyof NonNullable<typeof one> ? true : false, true>>();
  for await (const seat of await client.seats.export.query()) {
    holds<Equal<typeof seat.price, `${number}`>>();
  }
  // @ts-expect-error a moment is a string
  await client.seats.get_all.query({ since: new Date() });
  // @ts-expect-error its input is required
  await client.seats.get_one.query();
  // @ts-expect-error no such field
  await client.seats.get_one.query({ seat: 'a' });
  // @ts-expect-error it takes nothing
  await client.time.now.query({ zone: 'utc' });
  // @ts-expect-error a query is not mutated
  await client.seats.get_one.mutate({ seat_id: 'a' });
  // @ts-expect-error no such procedure
  await client.seats.get_on.query({ seat_id: 'a' });
  // @ts-expect-error a procedure that answers bytes is not called over tRPC
  await client.seats.plans.get.query();
}

export async function mutations() {
  const booked = await client.seats.book.mutate({ seat: { id: 'a' }, at: '2026-01-02T03:04:05Z' });
  holds<Equal<typeof booked.sold, { [key: string]: string }>>();
  holds<Equal<typeof booked.serial, number>>();
  const gone = await client.seats.delete.mutate({ seat_id: 'a' });
  holds<Equal<typeof gone, null>>();
  await client.seats.plans.add.mutate(new FormData());
  // @ts-expect-error files travel in a form
  await client.seats.plans.add.mutate({ plan: new Blob(), photos: [] });
  // @ts-expect-error a mutation is not queried
  await client.seats.delete.query({ seat_id: 'a' });
}

export function subscriptions() {
  client.seats.events.subscribe(undefined, {
    onData(event) {
      holds<Equal<typeof event.id, string>>();
      holds<Equal<typeof event.data.floor, 0 | 1 | null>>();
    },
    onError(error) {
      const data = error.data;
      if (data && data.type === 'NoSuchSeat') holds<Equal<typeof data.details.seat, string>>();
    },
  });
  client.seats.ticks.subscribe(undefined, {
    onData(tick) {
      holds<Equal<typeof tick, number>>();
    },
  });
  // @ts-expect-error a query is not subscribed to
  client.seats.get_one.subscribe({ seat_id: 'a' }, {});
}

// The errors of one procedure, and of any.
type BookError = inferProcedureErrorShape<AppRouter, Routes['seats']['book']>['data'];
declare const raised: BookError;
if (raised.type === 'SeatTaken') {
  holds<Equal<typeof raised.details, Json.SeatTakenDetails>>();
  holds<Equal<typeof raised.details.since, string>>();
}
holds<Equal<BookError['type'], 'NoSuchSeat' | 'SeatTaken' | undefined>>();
// @ts-expect-error it does not declare this one
raised.type === 'SeatLost';
declare const caught: TRPCClientError<AppRouter>;
const data = caught.data;
if (data && data.type === 'NoSuchSeat') {
  holds<Equal<typeof data.details.seat, string>>();
  holds<Equal<typeof data.httpStatus, number>>();
}

// What others infer.
holds<Equal<inferRouterInputs<AppRouter>['seats']['get_one'], { seat_id: string }>>();
holds<Equal<inferRouterOutputs<AppRouter>['seats']['ticks'] extends AsyncIterable<infer T> ? T : never, number>>();
