/** The client of TeamHub, one a login. */

import { createReactive, type Procedures, queue, type Reactive } from '../../../generated_client/typescript/index.ts';
import { showWaiting, tellRejected } from './sending.ts';
import { expire, type Session } from './session.ts';

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

/** Return the client of somebody; what the server no longer takes ends their session, and what they wrote waits. */
export function openHub({ email, token }: Session): Hub {
  return createReactive({
    url: '/',
    identity: email,
    credentials: () => ({ authorization: `Bearer ${token}` }),
    offline: queue({ mutations: { 'messages.send': showWaiting }, onRejected: tellRejected }),
    onUnauthorized: expire,
  });
}
