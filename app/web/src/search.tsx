/** Finding agents, messages and memories; what is written later appears by itself. */

import { type ReactNode, useEffect, useRef, useState } from 'react';

import { Blank, Bone } from './blank.tsx';
import { tinted, useChanged } from './changes.tsx';
import { StaleChip } from './connection.tsx';
import { Failure } from './failure.tsx';
import { skip, useReactive } from './hub.ts';
import { Avatar, Icon } from './icon.tsx';
import { go, linkTo } from './route.ts';
import { count, Moment } from './time.tsx';

/** How long somebody pauses who has typed a word. */
const PAUSE_MS = 150;
const KINDS = ['All', 'Agents', 'Messages', 'Memories'] as const;
type Kind = (typeof KINDS)[number];

export function SearchPage({ text }: { readonly text: string }): ReactNode {
  const [typed, setTyped] = useState(text);
  const [kind, setKind] = useState<Kind>('All');
  const field = useRef<HTMLInputElement>(null);
  const wanted = useSettled(typed.trim());
  const { data, error, isStale } = useReactive('search.find', wanted === '' ? skip : { text: wanted });
  useEffect(() => field.current?.focus(), []);
  useEffect(() => go({ view: 'search', text: wanted }, true), [wanted]);
  const counts = data && {
    All: data.agents.length + data.message_count + data.memory_count,
    Agents: data.agents.length,
    Messages: data.message_count,
    Memories: data.memory_count,
  };
  return (
    <>
      <h1 className="sr">Search</h1>
      <header className="head">
        <search className="bigfind">
          <Icon name="search" look="l" />
          <label className="sr" htmlFor="q">
            Search agents, messages and memories
          </label>
          <input
            id="q"
            ref={field}
            value={typed}
            maxLength={100}
            autoComplete="off"
            placeholder="Search agents, messages and memories"
            onChange={(event) => setTyped(event.target.value)}
          />
          {typed !== '' && (
            <button type="button" className="btn ghost sm icon" aria-label="Clear" onClick={() => setTyped('')}>
              <Icon name="x" look="s" />
            </button>
          )}
        </search>
        <StaleChip isStale={isStale && data !== undefined} />
      </header>
      <div className="bar">
        <fieldset className="seg">
          <legend className="sr">Show</legend>
          {KINDS.map((name) => (
            <button key={name} type="button" aria-pressed={kind === name} onClick={() => setKind(name)}>
              {name} {counts && <span className="n">{count(counts[name])}</span>}
            </button>
          ))}
        </fieldset>
        <span className="grow" />
        <span className="small dim desk">New matches appear by themselves</span>
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls is reached by the keyboard */}
      <section className="scroll" tabIndex={0} aria-label="Results">
        {wanted === '' ? (
          <Blank
            icon="search"
            title="Search your organization"
            text="Find agents by what they are, and messages and memories by what they say."
          />
        ) : data === undefined ? (
          error === null ? (
            <ResultBones />
          ) : (
            <Failure what="The results" error={error} />
          )
        ) : counts?.[kind] === 0 ? (
          <Blank
            icon="search-x"
            title={`Nothing says “${wanted}”`}
            text="Try fewer letters. If somebody writes it now, it appears here."
          >
            <button type="button" className="btn" onClick={() => setTyped('')}>
              Clear the search
            </button>
          </Blank>
        ) : (
          <Results result={data} text={wanted} kind={kind} />
        )}
      </section>
    </>
  );
}

type Result = NonNullable<ReturnType<typeof useReactive<'search.find'>>['data']>;

function Results({
  result,
  text,
  kind,
}: {
  readonly result: Result;
  readonly text: string;
  readonly kind: Kind;
}): ReactNode {
  const { data: all = [] } = useReactive('agents.get_overview');
  const names = new Map(all.map(({ agent }) => [agent.id, agent.name]));
  const nameOf = (id: string | null): string => (id === null ? 'everyone' : (names.get(id) ?? 'somebody'));
  const changed = tinted(useChanged(result.messages, idOf));
  const shows = (one: Kind): boolean => kind === 'All' || kind === one;
  return (
    <div className="res">
      {shows('Agents') && (
        <Group title="Agents" total={result.agents.length}>
          {result.agents.map((agent) => (
            <Hit
              key={agent.id}
              agentId={agent.id}
              name={agent.name}
              title={<Marked text={agent.name} found={text} />}
              about={<Marked text={[agent.role, agent.description ?? ''].filter(Boolean).join('. ')} found={text} />}
            />
          ))}
        </Group>
      )}
      {shows('Messages') && (
        <Group title="Messages" total={result.message_count}>
          {result.messages.map((message) => (
            <Hit
              key={message.id}
              agentId={message.from_agent_id}
              name={nameOf(message.from_agent_id)}
              title={
                <>
                  “<Marked text={message.body} found={text} />”
                </>
              }
              about={`${nameOf(message.from_agent_id)} to ${nameOf(message.to_agent_id)}`}
              at={message.created_at}
              isChanged={changed.has(message.id)}
            />
          ))}
        </Group>
      )}
      {shows('Memories') && (
        <Group title="Memories" total={result.memory_count}>
          {result.memories.map((memory) => (
            <Hit
              key={memory.id}
              agentId={memory.agent_id}
              title={<Marked text={memory.content} found={text} />}
              about={`Remembered by ${nameOf(memory.agent_id)}`}
              at={memory.created_at}
            />
          ))}
        </Group>
      )}
    </div>
  );
}

function Group({
  title,
  total,
  children,
}: {
  title: string;
  total: number;
  children: readonly ReactNode[];
}): ReactNode {
  if (total === 0) return null;
  return (
    <>
      <h2>
        {title} <span className="n">{count(total)}</span>
      </h2>
      <ul>{children}</ul>
      {total > children.length && <p className="small dim">The newest {count(children.length)} are shown</p>}
    </>
  );
}

interface HitProps {
  readonly agentId: string;
  /** Whose avatar it has; a memory has none. */
  readonly name?: string;
  readonly title: ReactNode;
  readonly about: ReactNode;
  readonly at?: Date;
  readonly isChanged?: boolean;
}

function Hit({ agentId, name, title, about, at, isChanged = false }: HitProps): ReactNode {
  return (
    <li>
      <a className={isChanged ? 'hit changed' : 'hit'} {...linkTo({ view: 'agent', agentId })}>
        {name === undefined ? (
          <span className="av sys" aria-hidden="true">
            <Icon name="brain" look="s" />
          </span>
        ) : (
          <Avatar name={name} />
        )}
        <span className="truncate">
          <span className="truncate block">{title}</span>
          <span className="truncate block about">{about}</span>
        </span>
        {at !== undefined && <Moment at={at} className={isChanged ? 'small up' : 'small dim'} />}
      </a>
    </li>
  );
}

/** A text in which what was looked for is marked. */
function Marked({ text, found }: { readonly text: string; readonly found: string }): ReactNode {
  const pieces: ReactNode[] = [];
  const [all, part] = [text.toLowerCase(), found.toLowerCase()];
  let from = 0;
  for (let at = all.indexOf(part); at >= 0; at = all.indexOf(part, from)) {
    pieces.push(text.slice(from, at), <mark key={at}>{text.slice(at, at + part.length)}</mark>);
    from = at + part.length;
  }
  return [...pieces, text.slice(from)];
}

function ResultBones(): ReactNode {
  return (
    <div className="res" aria-busy="true">
      <h2>Messages</h2>
      {[60, 44, 52, 38].map((width) => (
        <div className="hit" key={width}>
          <Bone width={28} height={28} look="box" />
          <span>
            <Bone width={`${width}%`} />
            <br />
            <Bone width={96} height={8} />
          </span>
        </div>
      ))}
    </div>
  );
}

/** Return a text once it has been the same for a moment. */
function useSettled(text: string): string {
  const [settled, setSettled] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(text), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return settled;
}

function idOf({ id }: { readonly id: string }): string {
  return id;
}
