/** How it stands with the server, said once: at the foot of the sidebar, in a banner if it lasts, in the titles' chip. */

import { type ReactNode, useEffect, useState } from 'react';

import { useVoice } from './announce.tsx';
import { type Status, useReactiveClient, useReactiveStatus } from './hub.ts';
import { Icon } from './icon.tsx';
import { clockTime, useElapsed } from './time.tsx';

/** A shorter break is nobody's concern. */
const PATIENCE_MS = 2000;

/** Tell whether what shows may be old without anybody saying so. */
export function isDoubtful(state: Status['state']): boolean {
  return state === 'reconnecting' || state === 'offline' || state === 'refused';
}

/** `Live`, `Reconnecting`, `Offline`. */
export function Connection(): ReactNode {
  const { state } = useReactiveStatus();
  return (
    <div className="conn" data-connection={state}>
      {MARKS[state]}
      <span className="lbl">{WORDS[state]}</span>
    </div>
  );
}

const WORDS = {
  idle: 'Connecting',
  live: 'Live',
  polling: 'Live, a little later',
  reconnecting: 'Reconnecting',
  offline: 'Offline',
  refused: 'Not connected',
} as const satisfies Record<Status['state'], string>;

const MARKS = {
  idle: <span className="dot" />,
  live: <span className="dot ok" />,
  polling: <span className="dot ok" />,
  reconnecting: <Icon name="loader-circle" look="s spin" />,
  offline: <Icon name="wifi-off" look="s" />,
  refused: <span className="dot bad" />,
} as const satisfies Record<Status['state'], ReactNode>;

/** What is true while there is no connection, and what happens to what is written. */
export function ConnectionBanner(): ReactNode {
  const { state, lastSync, waiting } = useReactiveStatus();
  const hub = useReactiveClient();
  const { say } = useVoice();
  const lasts = useLasting(isDoubtful(state));
  useEffect(() => {
    if (lasts) return say(state === 'offline' ? 'You are offline.' : 'The connection was lost.');
    return undefined;
  }, [lasts, state, say]);
  if (!lasts && state !== 'offline') return null;
  const since = lastSync === null ? '' : ` What you see was right at ${clockTime(lastSync)}.`;
  const isOffline = state === 'offline';
  // What was refused is asked again by nobody but who has, or may have, other rights by now.
  const tryNow = (): void => (state === 'refused' ? hub.reidentify() : hub.retry());
  return (
    <div className="banner">
      <Icon name={isOffline ? 'wifi-off' : 'loader-circle'} look={isOffline ? '' : 'spin'} />
      <span className="grow">
        {isOffline
          ? `You are offline.${since} Messages that you write are sent once you are back.`
          : 'The connection was lost. The page tries again by itself.'}
      </span>
      {waiting > 0 && <span className="chip line">{waiting} waiting</span>}
      {!isOffline && (
        <button type="button" className="btn sm" onClick={tryNow}>
          Try now
        </button>
      )}
    </div>
  );
}

/** Beside a title: how old what it heads is; it appears after a moment, by its style, as most doubts last no longer. */
export function StaleChip({ isStale }: { readonly isStale: boolean }): ReactNode {
  const { state, lastSync } = useReactiveStatus();
  const elapsed = useElapsed(lastSync);
  if (!isStale || lastSync === null) return null;
  return (
    <span className="chip warn stale">
      <Icon name="clock" look="s" />
      {state === 'offline' ? `As of ${clockTime(lastSync)}` : `Updated ${elapsed}`}
    </span>
  );
}

function useLasting(holds: boolean): boolean {
  const [lasts, setLasts] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLasts(holds), holds ? PATIENCE_MS : 0);
    return () => clearTimeout(timer);
  }, [holds]);
  return lasts && holds;
}
