/** What happened last in the organization: messages, and changes of agents that were seen since the page was opened. */

import type { ReactNode } from 'react';

import { Bone } from './blank.tsx';
import { type AgentChange, tinted, useAgentChanges, useChanged } from './changes.tsx';
import { type AgentOverview, type Message, useReactive } from './hub.ts';
import { Avatar } from './icon.tsx';
import { Moment } from './time.tsx';

const SHOWN = 12;

interface Happening {
  readonly id: string;
  readonly name: string;
  readonly text: ReactNode;
  readonly at: Date;
  readonly quote: string;
}

export function Feed({ agents }: { readonly agents: readonly AgentOverview[] }): ReactNode {
  const { data: messages } = useReactive('messages.get_latest', { limit: SHOWN });
  const changes = useAgentChanges();
  const names = new Map(agents.map(({ agent }) => [agent.id, agent.name]));
  const changed = tinted(useChanged(messages, idOfMessage));
  if (messages === undefined) return <FeedBones />;
  const happenings = [
    ...messages.flatMap((message) => (names.has(message.from_agent_id) ? [saidBy(message, names)] : [])),
    ...changes.map(changeIn),
  ];
  happenings.sort((one, other) => other.at.getTime() - one.at.getTime());
  return (
    <aside className="feed" aria-label="Just now">
      <header>
        <h2 className="grow">Just now</h2>
      </header>
      {/* It scrolls, so the keyboard has to reach it. */}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls is reached by the keyboard */}
      <section className="scroll" tabIndex={0} aria-label="Recent changes">
        <ul>
          {happenings.slice(0, SHOWN).map(({ id, name, text, at, quote }) => (
            <li key={id} className={changed.has(id) ? 'changed' : undefined}>
              <Avatar name={name} look="s" />
              <p>{text}</p>
              <Moment at={at} />
              <span className="q">{quote}</span>
            </li>
          ))}
        </ul>
      </section>
    </aside>
  );
}

export function FeedBones(): ReactNode {
  return (
    <aside className="feed" aria-label="Just now">
      <header>
        <h2 className="grow">Just now</h2>
      </header>
      <ul aria-hidden="true">
        {[160, 120, 184, 140, 160, 120, 184].map((width, place) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: they are all the same, and never move
          <li key={place}>
            <Bone width={20} height={20} look="box" />
            <p>
              <Bone width={width} />
            </p>
            <Bone width={24} />
            <span className="q">
              <Bone width={112} height={8} />
            </span>
          </li>
        ))}
      </ul>
    </aside>
  );
}

function saidBy(message: Message, names: ReadonlyMap<string, string>): Happening {
  const name = names.get(message.from_agent_id) ?? '';
  const receiver =
    message.to_agent_id === null ? 'everyone' : (names.get(message.to_agent_id) ?? 'an agent that is gone');
  const text = (
    <>
      <b>{name}</b> wrote to {message.to_agent_id === null ? receiver : <b>{receiver}</b>}
    </>
  );
  return { id: message.id, name, text, at: message.created_at, quote: `“${message.body}”` };
}

function changeIn({ agentId, name, at, what, before, after }: AgentChange): Happening {
  const text = (
    <>
      <b>{name}</b> {what.charAt(0).toLowerCase() + what.slice(1)}
    </>
  );
  return { id: `${agentId} ${at.getTime()}`, name, text, at, quote: before === '' ? after : `${before} → ${after}` };
}

function idOfMessage(message: Message): string {
  return message.id;
}
