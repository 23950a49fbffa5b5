/** Who calls. */

import { asError, ReactiveError } from './errors.ts';

/** Returns the headers that say who calls: `{ authorization: 'Bearer …' }`. */
export type Credentials = () => Readonly<Record<string, string>> | Promise<Readonly<Record<string, string>>>;

/** Return the headers. Throws a CONNECTION_FAILED if there are none now: who gives them may be there a little later. */
export async function headersOf(credentials: Credentials): Promise<Readonly<Record<string, string>>> {
  try {
    return await credentials();
  } catch (cause) {
    const message = `nothing was sent, as there are no credentials: ${asError(cause).message}`;
    throw new ReactiveError('CONNECTION_FAILED', message, { cause, isUnsent: true });
  }
}
