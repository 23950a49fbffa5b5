/** Moments as people say them: "now", "12 s", "9 min", "3 h", "Yesterday", "24 Sep". */

import { createContext, type ReactNode, useContext, useEffect, useState } from 'react';

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
/** A server's clock may be a little ahead of this one. */
const NOW = 5 * SECOND;

const Clock = createContext<{ readonly now: number; readonly isDoubtful: boolean }>({ now: 0, isDoubtful: false });

/** The one clock of the page: everything that says a time says it by the same moment. */
export function ClockProvider(props: { readonly isDoubtful: boolean; readonly children: ReactNode }): ReactNode {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setTimeout(() => setNow(Date.now()), SECOND - (now % SECOND));
    return () => clearTimeout(timer);
  }, [now]);
  return <Clock value={{ now, isDoubtful: props.isDoubtful }}>{props.children}</Clock>;
}

export interface MomentProps {
  readonly at: Date;
  /** Say "12 s ago" where "12 s" would be a length. */
  readonly ago?: boolean;
  readonly className?: string;
}

/** A moment; while nobody can tell whether the page is current, "now" would be a lie, so it says the time of day. */
export function Moment({ at, ago = false, className }: MomentProps): ReactNode {
  const { now, isDoubtful } = useContext(Clock);
  const elapsed = now - at.getTime();
  const said = isDoubtful && elapsed < DAY ? clockTime(at) : relative(elapsed, at, ago);
  return (
    <time className={className} dateTime={at.toISOString()} title={whole(at)}>
      {said}
    </time>
  );
}

/** Return how long ago something was, in whole seconds: for "Updated 14 s ago". */
export function useElapsed(at: Date | null): string {
  const { now } = useContext(Clock);
  return at === null ? '' : relative(Math.max(now - at.getTime(), SECOND), at, true, 0);
}

export function clockTime(at: Date): string {
  return at.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
}

/** Return the day as a heading says it. */
export function dayOf(at: Date, now: Date = new Date()): string {
  const days = Math.round((midnight(now) - midnight(at)) / DAY);
  if (days === 0) return 'Today';
  if (days === 1) return 'Yesterday';
  return at.toLocaleDateString('en-GB', { weekday: 'long', day: 'numeric', month: 'long' });
}

export function count(number: number): string {
  return number.toLocaleString('en-US');
}

function relative(elapsed: number, at: Date, ago: boolean, nowUntil = NOW): string {
  const suffix = ago ? ' ago' : '';
  if (elapsed < nowUntil) return 'now';
  if (elapsed < MINUTE) return `${Math.floor(elapsed / SECOND)} s${suffix}`;
  if (elapsed < HOUR) return `${Math.floor(elapsed / MINUTE)} min${suffix}`;
  if (elapsed < 12 * HOUR) return `${Math.floor(elapsed / HOUR)} h${suffix}`;
  const day = dayOf(at);
  return day === 'Today' || day === 'Yesterday'
    ? day
    : at.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });
}

function whole(at: Date): string {
  return at.toLocaleString('en-GB', { dateStyle: 'long', timeStyle: 'medium' });
}

function midnight(at: Date): number {
  return new Date(at.getFullYear(), at.getMonth(), at.getDate()).getTime();
}
