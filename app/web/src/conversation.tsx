/** What an agent has said and heard, oldest first, with what is being written. */

import { type ReactNode, useEffect, useLayoutEffect, useRef, useState } from 'react';

import { Blank, Bone } from './blank.tsx';
import { tinted, useChanged } from './changes.tsx';
import { Composer } from './composer.tsx';
import { useHistory } from './history.ts';
import { type Message, useReactive } from './hub.ts';
import { FailedMessage, SentMessage } from './message.tsx';
import { isSending, useSending } from './sending.ts';
import { dayOf } from './time.tsx';

export interface ConversationProps {
  readonly agentId: string;
  readonly name: string | undefined;
}

export function Conversation({ agentId, name = '' }: ConversationProps): ReactNode {
  const history = useHistory(agentId);
  const { failed, send, discard } = useSending(agentId);
  const [draft, setDraft] = useState({ text: '', to: '' });
  const { data: agents = [] } = useReactive('agents.get_overview');
  const names = new Map(agents.map(({ agent }) => [agent.id, agent.name]));
  const given = new Set(failed.map((one) => one.id));
  const rows = history.rows?.filter((message) => !given.has(message.id));
  return (
    <>
      <Log history={{ ...history, rows }}>
        {rows?.length === 0 && failed.length === 0 && (
          <Blank
            icon="message-square"
            title={`${name} has said nothing yet`}
            text={`Write as ${name} below. Everyone who has this page open sees it at once.`}
          />
        )}
        <Messages rows={rows ?? []} agentId={agentId} names={names} />
        {failed.map((one) => (
          <FailedMessage
            key={one.id}
            message={one}
            names={names}
            retry={() => send(one)}
            sendToAll={() => send({ ...one, to: '' })}
            edit={() => {
              setDraft({ text: one.body, to: one.to });
              discard(one.id);
            }}
            discard={() => discard(one.id)}
          />
        ))}
      </Log>
      <Composer agentId={agentId} name={name} draft={draft} setDraft={setDraft} send={send} agents={agents} />
    </>
  );
}

/** So near to its end, a log is at its end. */
const NEAR = 8;

function belowOf(element: HTMLElement): number {
  return element.scrollHeight - element.scrollTop - element.clientHeight;
}

/** Note that somebody has scrolled up since `top` was noted: what the browser says of it may still be on its way. */
function look(element: HTMLElement, top: number, isAtEnd: { current: boolean }): void {
  if (element.scrollTop < top && belowOf(element) >= NEAR) isAtEnd.current = false;
}

interface LogProps {
  readonly history: ReturnType<typeof useHistory>;
  readonly children: ReactNode;
}

/** It stays at the newest message, unless somebody reads further up; there it stays where it is. */
function Log({ history, children }: LogProps): ReactNode {
  const { rows, hasMore, isLoadingMore, loadMore } = history;
  const log = useRef<HTMLElement>(null);
  const sentinel = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(true);
  const top = useRef(0);
  const before = useRef<{ first: string | undefined; height: number }>({ first: undefined, height: 0 });
  const [isRead, setRead] = useState(false);
  const first = rows?.[0]?.id;
  useLayoutEffect(() => {
    const element = log.current;
    if (element === null) return;
    look(element, top.current, isAtEnd);
    // INVARIANT (nothing that is read moves): what was added above pushes down what is seen, so it is scrolled as far.
    if (isAtEnd.current) element.scrollTop = element.scrollHeight;
    else if (first !== before.current.first) element.scrollTop += element.scrollHeight - before.current.height;
    before.current = { first, height: element.scrollHeight };
    top.current = element.scrollTop;
  });
  useEffect(() => {
    const element = log.current;
    if (element === null) return;
    // A narrower window makes texts higher, without a render.
    const observer = new ResizeObserver(() => {
      look(element, top.current, isAtEnd);
      if (isAtEnd.current) element.scrollTop = element.scrollHeight;
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (sentinel.current === null || !hasMore || !isRead) return;
    const observer = new IntersectionObserver(
      ([entry]) => {
        if (entry?.isIntersecting && !isLoadingMore) loadMore();
      },
      { root: log.current, rootMargin: '200px' },
    );
    observer.observe(sentinel.current);
    return () => observer.disconnect();
  }, [hasMore, isLoadingMore, loadMore, isRead]);
  const scrolled = (): void => {
    const element = log.current;
    if (element === null) return;
    isAtEnd.current = belowOf(element) < NEAR;
    top.current = element.scrollTop;
    if (!isAtEnd.current) setRead(true);
  };
  return (
    <section
      className="talk"
      role="log"
      aria-label="Conversation"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls is reached by the keyboard
      tabIndex={0}
      aria-busy={rows === undefined || isLoadingMore}
      ref={log}
      onScroll={scrolled}
    >
      {rows === undefined ? (
        <MessageBones />
      ) : (
        <div className="messages">
          <div ref={sentinel} />
          {hasMore && (
            <button type="button" className="btn sm ghost earlier" onClick={loadMore} aria-disabled={isLoadingMore}>
              {isLoadingMore ? 'Loading' : 'Earlier'}
            </button>
          )}
          {children}
        </div>
      )}
    </section>
  );
}

interface MessagesProps {
  readonly rows: readonly Message[];
  readonly agentId: string;
  readonly names: ReadonlyMap<string, string>;
}

function Messages({ rows, agentId, names }: MessagesProps): ReactNode {
  const changed = tinted(useChanged(rows, idOf));
  return rows.map((message, place) => {
    const day = dayOf(message.created_at);
    const before = rows[place - 1];
    return (
      <div key={message.id}>
        {(before === undefined || dayOf(before.created_at) !== day) && <p className="day">{day}</p>}
        <SentMessage
          message={message}
          names={names}
          isOwn={message.from_agent_id === agentId}
          isChanged={changed.has(message.id) && !isSending(message)}
        />
      </div>
    );
  });
}

function MessageBones(): ReactNode {
  return (
    <div className="messages" aria-hidden="true">
      {[70, 52, 64, 40, 58, 46].map((width) => (
        <div className="msg" key={width}>
          <Bone width={28} height={28} look="box" />
          <div>
            <Bone width={112} />
            <p>
              <Bone width={`${width}%`} />
            </p>
          </div>
        </div>
      ))}
    </div>
  );
}

function idOf(message: Message): string {
  return message.id;
}
