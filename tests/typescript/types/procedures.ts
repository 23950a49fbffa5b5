/** What the generated types accept and refuse: each wrong line is an error, and each right one is none. */

import type {
  Api,
  Card,
  Decimal,
  Named,
  NoSuchSeat,
  OtherError,
  Procedures,
  Query,
  Rank,
  Seat,
  SeatInput,
  SeatTaken,
  seats,
} from '../../codegen/theatre.ts';
import { type Equal, holds } from './equality.ts';

type Of<Path extends keyof Procedures> = Procedures[Path];

// Paths, kinds, and the tree.
holds<Equal<Of<'seats.get_one'>, Query<seats.get_one_Input, seats.get_one_Output, seats.get_one_Error>>>();
holds<Equal<Api['seats']['plans']['add'], Named<'seats.plans.add'>>>();
holds<Equal<Of<'seats.book'>['kind'], 'mutation'>>();
holds<Equal<Of<'seats.export'>['kind'], 'streamed-query'>>();
holds<Equal<Of<'seats.ticks'>['kind'], 'subscription'>>();
// @ts-expect-error no such procedure
export type Unknown = Of<'seats.get_on'>;

// Outputs have every field, those with defaults too, in values that TypeScript has.
declare const seat: Seat;
holds<Equal<typeof seat.rank, Rank>>();
holds<Equal<Rank, 'stalls' | 'circle'>>();
holds<Equal<typeof seat.floor, 0 | 1 | null>>();
holds<Equal<typeof seat.price, Decimal>>();
holds<Equal<typeof seat.serial, bigint>>();
holds<Equal<typeof seat.ticket, Uint8Array>>();
holds<Equal<typeof seat.tags, Set<string>>>();
holds<Equal<typeof seat.sold, Map<number, string>>>();
holds<Equal<typeof seat.place, [number, string]>>();
holds<Equal<(typeof seat.beside)[number], Seat>>();
holds<Equal<typeof seat.more, { [key: string]: unknown }>>();
holds<Equal<(typeof seat)['a-b'], string>>();
holds<Equal<(typeof seat)['class'], string>>();
holds<Equal<Of<'time.now'>['output'], Date>>();
holds<Equal<Of<'seats.get_one'>['output'], Seat | null>>();
holds<Equal<Of<'seats.delete'>['output'], null>>();
holds<Equal<Of<'seats.export'>['output'], Seat>>();
holds<Equal<Of<'seats.ticks'>['output'], number>>();
holds<Equal<Of<'seats.plans.get'>['output'], Blob>>();
// @ts-expect-error what is indexed may not be there
seat.beside[0].id;
// @ts-expect-error no such field
seat.name;
// @ts-expect-error a field of what may be null
(null as Of<'seats.get_one'>['output']).id;

// A field that a result may lack is the only one that is optional.
type Note = (typeof seat.notes)[number];
holds<Equal<Note['at'], Date | undefined>>();
({ text: '' }) satisfies Note;
// @ts-expect-error the text is always there
({ at: new Date() }) satisfies Note;

// Unions narrow by their tag.
const paid = seat.paid_by;
if (paid !== null && paid.kind === 'card') {
  holds<Equal<typeof paid, Card>>();
  holds<Equal<typeof paid.checked_at, Date | null>>();
}
// @ts-expect-error only a card has digits
paid?.digits;

// Inputs may leave out what has a default, also by undefined; the rest is required.
const found = { seat_id: 'a' } satisfies seats.get_one_Input;
({}) satisfies seats.get_all_Input;
({ rank: undefined, since: new Date(), limit: 3 }) satisfies seats.get_all_Input;
({ limit: undefined }) satisfies seats.get_all_Input;
({ rank: null }) satisfies seats.get_all_Input;
({ id: 'a' }) satisfies SeatInput;
({ id: 'a', price: '1.10', paid_by: { amount: '2' }, serial: 2n ** 61n, tags: new Set(['a']) }) satisfies SeatInput;
// @ts-expect-error it is required
({}) satisfies seats.get_one_Input;
// @ts-expect-error null is no number
({ limit: null }) satisfies seats.get_all_Input;
// @ts-expect-error no such rank
({ rank: 'gods' }) satisfies seats.get_all_Input;
// @ts-expect-error no such field
({ seat_id: 'a', seatId: 'a' }) satisfies seats.get_one_Input;
// @ts-expect-error a moment is a Date
({ since: '2026-01-02T03:04:05Z' }) satisfies seats.get_all_Input;
// @ts-expect-error text that spells no number
({ id: 'a', price: 'ten' }) satisfies SeatInput;
// @ts-expect-error a number would lose digits
({ id: 'a', price: 1.1 }) satisfies SeatInput;
// @ts-expect-error an array is no set
({ id: 'a', tags: ['a'] }) satisfies SeatInput;
holds<Equal<Of<'time.now'>['input'], void>>();

// A result can be sent back as it came.
seat satisfies SeatInput;

// Files.
({ plan: new Blob(), photos: [new File([], 'a.png')], title: 'Plan' }) satisfies seats.plans.add_Input;
// @ts-expect-error the plan is required
({ photos: [] }) satisfies seats.plans.add_Input;
// @ts-expect-error text is no file
({ plan: 'a', photos: [] }) satisfies seats.plans.add_Input;

// Declared errors are one union, which narrows by its type.
declare const error: Of<'seats.book'>['error'];
holds<Equal<typeof error, NoSuchSeat | SeatTaken | OtherError>>();
if (error.type === 'SeatTaken') {
  holds<Equal<typeof error.details.since, string>>();
  holds<Equal<typeof error.code, 'CONFLICT'>>();
}
if (error.type === null) {
  holds<Equal<typeof error.details, unknown>>();
}
// @ts-expect-error nobody raises it
error.type === 'SeatLost';
// @ts-expect-error not before it is known which error it is
error.details.seat;
holds<Equal<Of<'seats.get_all'>['error'], OtherError>>();

// What may be further fields is unknown.
declare const settings: Of<'function.set'>['output'];
holds<Equal<typeof settings.theme, string>>();
holds<Equal<(typeof settings)['volume'], unknown>>();

export { found };
