/**
 * What has just changed in what the page shows. A list is compared with the one before, by ids, so it does not matter
 * who wrote: a colleague, an agent, a program that knows nothing of TeamHub, or oneself.
 */

import { createContext, type ReactNode, useContext, useEffect, useRef, useState } from 'react';

import type { AgentOverview } from './hub.ts';

/** For how long a change is tinted; its words stay. */
export const TINT_MS = 1600;
/** More changes at once than this are counted, and none is tinted. */
const TINTED = 5;
/** How many changes of agents are remembered. */
const REMEMBERED = 20;

/** Return the ids of the items that differ from those before, for as long as they are tinted. */
export function useChanged<T>(items: readonly T[] | undefined, idOf: (item: T) => string): ReadonlySet<string> {
  const before = useRef<ReadonlyMap<string, string> | null>(null);
  const [changed, setChanged] = useState<ReadonlySet<string>>(new Set());
  useEffect(() => {
    if (items === undefined) return;
    const now = new Map(items.map((item) => [idOf(item), JSON.stringify(item)]));
    const last = before.current;
    before.current = now;
    const differing = last === null ? [] : [...now.keys()].filter((id) => now.get(id) !== last.get(id));
    if (differing.length === 0) return;
    setChanged((shown) => new Set([...shown, ...differing]));
    // INVARIANT (each tint ends): the timer is not cleared when the next change comes, which has one of its own.
    setTimeout(() => setChanged((shown) => without(shown, differing)), TINT_MS);
  }, [items, idOf]);
  return changed;
}

/** Tell whether a value is another one than a moment ago; its first one is none. */
export function useIsChanged(value: string | number | undefined): boolean {
  const before = useRef(value);
  const [isChanged, setIsChanged] = useState(false);
  useEffect(() => {
    if (value === undefined || value === before.current) return;
    const isFirst = before.current === undefined;
    before.current = value;
    if (isFirst) return;
    setIsChanged(true);
    const timer = setTimeout(() => setIsChanged(false), TINT_MS);
    return () => clearTimeout(timer);
  }, [value]);
  return isChanged;
}

/** Return those of the changes that are tinted: none if there are too many to be looked at one by one. */
export function tinted(changed: ReadonlySet<string>): ReadonlySet<string> {
  return changed.size > TINTED ? new Set() : changed;
}

/** A change of an agent that was seen while the page was open. Who made it, nobody has said. */
export interface AgentChange {
  readonly agentId: string;
  readonly name: string;
  readonly at: Date;
  /** `Role changed`; of several fields, the first. */
  readonly what: string;
  readonly before: string;
  readonly after: string;
}

const Changes = createContext<readonly AgentChange[]>([]);

export function ChangesProvider(props: {
  readonly changes: readonly AgentChange[];
  readonly children: ReactNode;
}): ReactNode {
  return <Changes value={props.changes}>{props.children}</Changes>;
}

/** Return the changes of agents since the page was opened, newest first. */
export function useAgentChanges(): readonly AgentChange[] {
  return useContext(Changes);
}

/** Watch the agents themselves: their names, roles, descriptions, and whether they are paused. */
export function useObservedAgents(agents: readonly AgentOverview[] | undefined): readonly AgentChange[] {
  const before = useRef<ReadonlyMap<string, AgentOverview> | null>(null);
  const [changes, setChanges] = useState<readonly AgentChange[]>([]);
  useEffect(() => {
    if (agents === undefined) return;
    const last = before.current;
    before.current = new Map(agents.map((one) => [one.agent.id, one]));
    if (last === null) return;
    const found = agents.flatMap((now) => changeOf(last.get(now.agent.id), now) ?? []);
    if (found.length > 0) setChanges((known) => [...found, ...known].slice(0, REMEMBERED));
  }, [agents]);
  return changes;
}

const FIELDS = [
  ['is_active', 'Paused or resumed'],
  ['name', 'Name changed'],
  ['role', 'Role changed'],
  ['description', 'Description changed'],
] as const;

function changeOf(last: AgentOverview | undefined, now: AgentOverview): AgentChange | null {
  const about = { agentId: now.agent.id, name: now.agent.name, at: new Date() };
  if (last === undefined) return { ...about, what: 'Created', before: '', after: now.agent.role };
  for (const [field, what] of FIELDS) {
    const [one, other] = [last.agent[field], now.agent[field]];
    if (one === other) continue;
    if (field === 'is_active') return { ...about, what: other ? 'Resumed' : 'Paused', before: '', after: '' };
    return { ...about, what, before: String(one ?? ''), after: String(other ?? '') };
  }
  return null;
}

function without(shown: ReadonlySet<string>, ids: readonly string[]): ReadonlySet<string> {
  const left = new Set(shown);
  for (const id of ids) left.delete(id);
  return left;
}
