/** The client of TeamHub, one a login. */

import { createReactive, type Procedures, type Reactive } from '../../../generated_client/typescript/index.ts';
import { logOut, type Session } from './session.ts';

export type Hub = Reactive<Procedures>;

export type { Agent, AgentOverview, Memory, Message, Status } from '../../../generated_client/typescript/index.ts';
export { ReactiveError } from '../../../generated_client/typescript/index.ts';
export {
  ReactiveProvider,
  skip,
  useReactive,
  useReactiveClient,
  useReactiveInfinite,
  useReactiveMutation,
  useReactivePriorities,
  useReactiveStatus,
} from '../../../generated_client/typescript/react.ts';

/** Return the client of somebody; what the server no longer takes ends their session. */
export function openHub({ email, token }: Session): Hub {
  return createReactive({
    url: '/',
    identity: email,
    credentials: () => ({ authorization: `Bearer ${token}` }),
    onUnauthorized: logOut,
  });
}
