/** The agents of the organization, with what each has done. */

import { type KeyboardEvent, type ReactNode, useEffect, useState } from 'react';

import { lastChangeOf } from './activity.ts';
import { AgentDialog } from './agent-dialog.tsx';
import { useVoice } from './announce.tsx';
import { Blank, Bone } from './blank.tsx';
import { type AgentChange, tinted, useAgentChanges, useChanged } from './changes.tsx';
import { StaleChip } from './connection.tsx';
import { Failure } from './failure.tsx';
import { Feed, FeedBones } from './feed.tsx';
import { type AgentOverview, useReactive } from './hub.ts';
import { Avatar, Icon } from './icon.tsx';
import { useHeld, useOrdered } from './order.ts';
import { linkTo } from './route.ts';
import { count, Moment } from './time.tsx';

const FILTERS = [
  ['All', () => true],
  ['Active', (one: AgentOverview) => one.agent.is_active],
  ['Paused', (one: AgentOverview) => !one.agent.is_active],
] as const;

type FilterName = (typeof FILTERS)[number][0];

const ORDERS = {
  name: ['Name', (one, other) => one.agent.name.localeCompare(other.agent.name)],
  last: ['Last change', (one, other) => lastAtOf(other) - lastAtOf(one)],
  messages: ['Messages', (one, other) => other.message_count - one.message_count],
  memories: ['Memories', (one, other) => other.memory_count - one.memory_count],
} as const satisfies Record<string, readonly [string, (one: AgentOverview, other: AgentOverview) => number]>;

type OrderName = keyof typeof ORDERS;

export function AgentsPage(): ReactNode {
  const { data, error, isStale } = useReactive('agents.get_overview');
  const [isNew, setNew] = useState(false);
  const active = data?.filter(({ agent }) => agent.is_active).length;
  return (
    <>
      <header className="head">
        <h1>Agents</h1>
        {data !== undefined && data.length > 0 && (
          <span className="sub num">
            {count(data.length)}, of which {count(active ?? 0)} are active
          </span>
        )}
        <StaleChip isStale={isStale && data !== undefined} />
        <span className="grow" />
        <button type="button" className="btn primary" onClick={() => setNew(true)}>
          <Icon name="plus" />
          New agent
        </button>
      </header>
      {data === undefined ? (
        error === null ? (
          <LoadingAgents />
        ) : (
          <Failure what="The agents" error={error} />
        )
      ) : (
        <Agents agents={data} create={() => setNew(true)} />
      )}
      {isNew && <AgentDialog close={() => setNew(false)} />}
    </>
  );
}

function Agents({
  agents,
  create,
}: {
  readonly agents: readonly AgentOverview[];
  readonly create: () => void;
}): ReactNode {
  const [shown, setShown] = useState<FilterName>('All');
  const [order, setOrder] = useState<OrderName>('name');
  const [isHeld, holding] = useHeld();
  const { entries, isOutdated } = useOrdered(agents, idOf, ORDERS[order][1], isHeld);
  const changed = useChanged(agents, idOf);
  const changes = useAgentChanges();
  useMentioned(changed, agents);
  const belongs = FILTERS.find(([name]) => name === shown)?.[1] ?? (() => true);
  const marked = tinted(changed);
  if (agents.length === 0) {
    return (
      <Blank
        icon="bot"
        title="No agents yet"
        text="An agent talks to the others and remembers what it learns. Everybody in your organization sees it as soon as you make it."
      >
        <button type="button" className="btn primary" onClick={create}>
          <Icon name="plus" />
          New agent
        </button>
      </Blank>
    );
  }
  return (
    <div className="split list">
      <section className="main" aria-label="Agents">
        <div className="bar">
          <fieldset className="seg">
            <legend className="sr">Show</legend>
            {FILTERS.map(([name, matches]) => (
              <button key={name} type="button" aria-pressed={shown === name} onClick={() => setShown(name)}>
                {name} <span className="n">{count(agents.filter(matches).length)}</span>
              </button>
            ))}
          </fieldset>
          <span className="grow" />
          {changed.size > 0 && marked.size === 0 && <span className="small up">{count(changed.size)} changed</span>}
          {isOutdated && <span className="small dim">Sorted anew when you leave the list</span>}
          <select
            className="btn ghost"
            aria-label="Order of the list"
            value={order}
            onChange={({ currentTarget }) => setOrder(currentTarget.value as OrderName)}
          >
            {Object.entries(ORDERS).map(([key, [words]]) => (
              <option key={key} value={key}>
                {words}
              </option>
            ))}
          </select>
        </div>
        <section className="agents scroll" aria-label="List of agents" onKeyDown={moveFocus} {...holding}>
          <Heads />
          {entries.filter(belongs).map((one) => (
            <AgentRow key={one.agent.id} overview={one} isChanged={marked.has(one.agent.id)} changes={changes} />
          ))}
          {shown !== 'All' && !agents.some(belongs) && <p className="none">No agent is {shown.toLowerCase()}</p>}
        </section>
      </section>
      <Feed agents={agents} />
    </div>
  );
}

interface AgentRowProps {
  readonly overview: AgentOverview;
  readonly isChanged: boolean;
  readonly changes: readonly AgentChange[];
}

function AgentRow({ overview, isChanged, changes }: AgentRowProps): ReactNode {
  const { agent, message_count, memory_count, last_message } = overview;
  const last = lastChangeOf(overview, changes);
  const role = isChanged && last.what === 'Role changed' ? 'up small' : 'dim small';
  return (
    <a className={isChanged ? 'tr changed' : 'tr'} {...linkTo({ view: 'agent', agentId: agent.id })}>
      <span className="name">
        <Avatar name={agent.name} />
        <span className="truncate">
          <b>{agent.name}</b>
          <br />
          <span className={role}>{agent.role}</span>
        </span>
      </span>
      <Standing isActive={agent.is_active} />
      <span className={last_message === null ? 'c-now truncate dim' : 'c-now truncate'}>
        {last_message?.body ?? 'Nothing yet'}
      </span>
      <span className="r num c-msg">
        {count(message_count)}
        <span className="sr"> messages</span>
      </span>
      <span className="r num c-mem">
        {count(memory_count)}
        <span className="sr"> memories</span>
      </span>
      <span className="c-last small truncate">
        <span className={isChanged ? 'ln1 up' : 'ln1 muted'}>{last.what}</span>
        <br className="ln1" />
        <Moment at={last.at} ago className={isChanged ? 'up' : 'dim'} />
      </span>
    </a>
  );
}

/** Whether it works, always with its word. */
export function Standing({ isActive }: { readonly isActive: boolean }): ReactNode {
  return (
    <span className="status">
      {isActive ? (
        <span className="dot-box">
          <span className="dot acc" />
        </span>
      ) : (
        <Icon name="pause" look="s dim" />
      )}
      {isActive ? 'Active' : 'Paused'}
    </span>
  );
}

function Heads(): ReactNode {
  return (
    <div className="tr th" aria-hidden="true">
      <span>Agent</span>
      <span>Status</span>
      <span className="c-now">Said last</span>
      <span className="r c-msg">Messages</span>
      <span className="r c-mem">Memories</span>
      <span className="c-last">Last change</span>
    </div>
  );
}

const BONES = Array.from({ length: 14 }, (_, place) => place);

function LoadingAgents(): ReactNode {
  return (
    <div className="split list" aria-busy="true">
      <section className="main" aria-label="Loading agents">
        <div className="bar">
          <Bone width={236} height={32} look="box" />
        </div>
        <div className="agents scroll" aria-hidden="true">
          <Heads />
          {BONES.map((place) => (
            <div className="tr" key={place}>
              <span className="name">
                <Bone width={28} height={28} look="box" />
                <span>
                  <Bone width={[64, 88, 72][place % 3] ?? 64} />
                  <br />
                  <Bone width={56} height={8} />
                </span>
              </span>
              <span className="status">
                <Bone width={64} />
              </span>
              <span className="c-now">
                <Bone width={[140, 96, 168][place % 3] ?? 96} />
              </span>
              <span className="r c-msg">
                <Bone width={32} />
              </span>
              <span className="r c-mem">
                <Bone width={28} />
              </span>
              <span className="c-last">
                <Bone width={[96, 112, 80][place % 3] ?? 80} />
              </span>
            </div>
          ))}
        </div>
      </section>
      <FeedBones />
    </div>
  );
}

/** The arrows go from row to row. */
function moveFocus(event: KeyboardEvent<HTMLElement>): void {
  const step = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
  const rows = [...event.currentTarget.querySelectorAll<HTMLElement>('a.tr')];
  const at = rows.indexOf(document.activeElement as HTMLElement);
  if (step === 0 || at < 0) return;
  event.preventDefault();
  rows[at + step]?.focus();
}

function useMentioned(changed: ReadonlySet<string>, agents: readonly AgentOverview[]): void {
  const { mention } = useVoice();
  useEffect(() => {
    if (changed.size === 0) return;
    const [id] = changed;
    const name = agents.find((one) => one.agent.id === id)?.agent.name;
    mention(changed.size === 1 && name !== undefined ? `${name} changed` : `${changed.size} agents changed`);
  }, [changed, agents, mention]);
}

function lastAtOf(overview: AgentOverview): number {
  return lastChangeOf(overview, []).at.getTime();
}

function idOf({ agent }: AgentOverview): string {
  return agent.id;
}
