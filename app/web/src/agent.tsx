/** One agent: how much it has done, its conversation, what it remembers and can use. */

import { type ReactNode, useRef, useState } from 'react';

import { lastChangeOf } from './activity.ts';
import { AgentDialog } from './agent-dialog.tsx';
import { Standing } from './agents.tsx';
import { useVoice } from './announce.tsx';
import { Blank, Bone } from './blank.tsx';
import { useAgentChanges, useIsChanged } from './changes.tsx';
import { StaleChip } from './connection.tsx';
import { Conversation } from './conversation.tsx';
import { Failure, Forbidden, isForbidden } from './failure.tsx';
import { type Agent, type AgentOverview, useReactive, useReactiveClient } from './hub.ts';
import { Avatar, Icon } from './icon.tsx';
import { Rail } from './rail.tsx';
import { linkTo } from './route.ts';
import { count, Moment } from './time.tsx';

const TABS = ['Conversation', 'Memory', 'Tools'] as const;
export type Tab = (typeof TABS)[number];

/** What is known of the agent; of one that was shown and is gone, what was shown last. */
function useAgent(agentId: string) {
  const { data: agents } = useReactive('agents.get_overview');
  const state = useReactive('agents.get_with_stats', { agent_id: agentId });
  const overview = agents?.find((one) => one.agent.id === agentId);
  const last = useRef<Agent | undefined>(undefined);
  const agent = state.data?.agent ?? (isForbidden(state.error) ? undefined : overview?.agent);
  if (agent !== undefined) last.current = agent;
  return { ...state, agent, overview, last: last.current };
}

export function AgentPage({ agentId }: { readonly agentId: string }): ReactNode {
  const { agent, overview, last, data, error, isStale } = useAgent(agentId);
  const [tab, setTab] = useState<Tab>('Conversation');
  return (
    <>
      <header className="head">
        <nav className="crumb" aria-label="Path">
          <a {...linkTo({ view: 'agents' })}>Agents</a>
          <Icon name="chevron-right" />
          <span className="muted">{(agent ?? last)?.name ?? <Bone width={48} />}</span>
        </nav>
        <StaleChip isStale={isStale && data !== undefined} />
      </header>
      {isForbidden(error) ? (
        last === undefined ? (
          <Forbidden />
        ) : (
          <Gone agent={last} />
        )
      ) : error !== null && data === undefined ? (
        <Failure what={last?.name ?? 'The agent'} error={error} />
      ) : (
        <div className="split" data-tab={tab}>
          <section className="main" aria-label={agent?.name ?? 'Agent'}>
            <Heading agent={agent} />
            <Statistics stats={data} overview={overview} />
            <fieldset className="tabs mobile-only">
              <legend className="sr">Show</legend>
              {TABS.map((name) => (
                <button key={name} type="button" aria-pressed={tab === name} onClick={() => setTab(name)}>
                  {name}
                </button>
              ))}
            </fieldset>
            <Conversation key={agentId} agentId={agentId} name={agent?.name} />
          </section>
          <Rail agentId={agentId} name={agent?.name} memoryCount={data?.memory_count} />
        </div>
      )}
    </>
  );
}

function Heading({ agent }: { readonly agent: Agent | undefined }): ReactNode {
  const [isEdited, setEdited] = useState(false);
  const isRoleNew = useIsChanged(agent?.role);
  if (agent === undefined) {
    return (
      <div className="hero">
        <Bone width={48} height={48} look="box" />
        <div className="grow">
          <h1>
            <span className="sr">Loading the agent</span>
            <Bone width={96} height={16} />
          </h1>
          <p>
            <Bone width={200} />
          </p>
        </div>
      </div>
    );
  }
  return (
    <div className={isRoleNew ? 'hero changed' : 'hero'}>
      <Avatar name={agent.name} look="l" />
      <div className="grow">
        <div className="row">
          <h1 className="truncate">{agent.name}</h1>
          <span className={agent.is_active ? 'chip acc' : 'chip'}>
            <Standing isActive={agent.is_active} />
          </span>
        </div>
        <p className="muted truncate">
          <span className={isRoleNew ? 'up' : undefined}>{agent.role}</span>
          {agent.description !== null && <span className="desk">. {agent.description}</span>}
        </p>
      </div>
      <div className="row acts">
        <button type="button" className="btn" onClick={() => setEdited(true)}>
          <Icon name="pencil" />
          Edit
        </button>
        <PauseButton agent={agent} />
      </div>
      {isEdited && <AgentDialog agent={agent} close={() => setEdited(false)} />}
    </div>
  );
}

function PauseButton({ agent }: { readonly agent: Agent }): ReactNode {
  const hub = useReactiveClient();
  const { toast, say } = useVoice();
  const become = async (is_active: boolean): Promise<void> => {
    const verb = is_active ? 'works again' : 'is paused';
    try {
      await hub.call(
        'agents.update',
        { agent_id: agent.id, is_active },
        {
          optimistic: (on) => {
            on('agents.get_with_stats', { agent_id: agent.id }, (stats) => ({
              ...stats,
              agent: { ...stats.agent, is_active },
            }));
            on('agents.get_overview', null, (all) =>
              all.map((one) => (one.agent.id === agent.id ? { ...one, agent: { ...one.agent, is_active } } : one)),
            );
          },
        },
      );
      toast({
        title: `${agent.name} ${verb}`,
        text: 'Everybody in the organization sees it.',
        action: { label: 'Undo', run: () => void become(!is_active) },
      });
    } catch {
      say(`${agent.name} could not be changed`);
    }
  };
  return (
    <button type="button" className="btn" onClick={() => void become(!agent.is_active)}>
      <Icon name={agent.is_active ? 'pause' : 'play'} />
      {agent.is_active ? 'Pause' : 'Resume'}
    </button>
  );
}

interface StatisticsProps {
  readonly stats: { readonly message_count: number; readonly memory_count: number } | undefined;
  readonly overview: AgentOverview | undefined;
}

function Statistics({ stats, overview }: StatisticsProps): ReactNode {
  const changes = useAgentChanges();
  const last = overview && lastChangeOf(overview, changes);
  return (
    <dl className="stats">
      <Statistic name="Messages sent" value={stats?.message_count} />
      <Statistic name="Memories" value={stats?.memory_count} />
      <div>
        <dt>Last change</dt>
        <dd>{last === undefined ? <Bone width={56} height={16} /> : <Moment at={last.at} ago />}</dd>
      </div>
      <div>
        <dt>Created</dt>
        <dd>{overview === undefined ? <Bone width={56} height={16} /> : <Moment at={overview.agent.created_at} />}</dd>
      </div>
    </dl>
  );
}

function Statistic({ name, value }: { readonly name: string; readonly value: number | undefined }): ReactNode {
  const isChanged = useIsChanged(value);
  return (
    <div className={isChanged ? 'changed' : undefined}>
      <dt>{name}</dt>
      <dd>{value === undefined ? <Bone width={56} height={16} /> : count(value)}</dd>
    </div>
  );
}

function Gone({ agent }: { readonly agent: Agent }): ReactNode {
  return (
    <Blank
      icon="trash"
      title="This agent was deleted"
      text={`${agent.name} was deleted a moment ago, with its messages and its memories.`}
      level={1}
    >
      <a className="btn" {...linkTo({ view: 'agents' })}>
        Back to agents
      </a>
    </Blank>
  );
}
