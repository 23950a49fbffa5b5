/** A message: sent, on its way, refused, or being edited. */

import { type ReactNode, useState } from 'react';
import { isDoubtful } from './connection.tsx';
import { type Message, useReactiveStatus } from './hub.ts';
import { Avatar, Icon } from './icon.tsx';
import { MessageEditor } from './message-editor.tsx';
import { type Failed, isSending } from './sending.ts';
import { clockTime } from './time.tsx';

type Names = ReadonlyMap<string, string>;

export interface SentMessageProps {
  readonly message: Message;
  readonly names: Names;
  /** Whether the agent whose page this is has said it. */
  readonly isOwn: boolean;
  readonly isChanged: boolean;
}

export function SentMessage({ message, names, isOwn, isChanged }: SentMessageProps): ReactNode {
  const [isEdited, setEdited] = useState(false);
  const isPending = isSending(message);
  const isWaiting = isDoubtful(useReactiveStatus().state);
  if (isEdited) return <MessageEditor message={message} names={names} close={() => setEdited(false)} />;
  return (
    <article className={`msg${isPending ? ' pending' : ''}${isChanged ? ' changed' : ''}`}>
      <Avatar name={names.get(message.from_agent_id) ?? '?'} />
      <div>
        <By message={message} names={names}>
          {isOwn && !isPending && (
            <button
              type="button"
              className="btn sm icon ghost edit"
              aria-label="Edit this message"
              onClick={() => setEdited(true)}
            >
              <Icon name="pencil" look="s" />
            </button>
          )}
        </By>
        <p className="body">{message.body}</p>
        {isPending && (
          <p className="state">
            <Icon name="clock" look="s" />
            {isWaiting ? 'Waiting' : 'Sending'}
          </p>
        )}
      </div>
    </article>
  );
}

interface ByProps {
  readonly message: Pick<Message, 'from_agent_id' | 'to_agent_id' | 'created_at'>;
  readonly names: Names;
  readonly children?: ReactNode;
}

/** Who said it to whom, and when. */
export function By({ message, names, children }: ByProps): ReactNode {
  const { from_agent_id, to_agent_id, created_at } = message;
  return (
    <div className="by">
      <b>{names.get(from_agent_id) ?? 'Somebody'}</b>
      <span className="to">to {to_agent_id === null ? 'everyone' : (names.get(to_agent_id) ?? 'somebody')}</span>
      <time dateTime={created_at.toISOString()} title={created_at.toLocaleString('en-GB')}>
        {clockTime(created_at)}
      </time>
      {children}
    </div>
  );
}

const REASONS = {
  receiver: 'Not sent: who should get it was deleted while you wrote.',
  connection: 'Not sent: the connection was lost.',
  other: 'Not sent: the server did not take it.',
} as const satisfies Record<Failed['why'], string>;

export interface FailedMessageProps {
  readonly message: Failed;
  readonly names: Names;
  readonly retry: () => void;
  readonly sendToAll: () => void;
  readonly edit: () => void;
  readonly discard: () => void;
}

/** A message that was not taken: nothing that was written is lost. */
export function FailedMessage({ message, names, retry, sendToAll, edit, discard }: FailedMessageProps): ReactNode {
  const about = { from_agent_id: message.from, to_agent_id: message.to || null, created_at: message.at };
  const isGone = message.why === 'receiver';
  return (
    <article className="msg bad">
      <Avatar name={names.get(message.from) ?? '?'} />
      <div>
        <By message={about} names={names} />
        <p className="body">{message.body}</p>
        <p className="state" role="alert">
          <Icon name="circle-alert" look="s" />
          {REASONS[message.why]}
        </p>
        <div className="acts">
          <button type="button" className="btn sm" onClick={isGone ? sendToAll : retry}>
            {isGone ? 'Send to everyone' : 'Send again'}
          </button>
          <button type="button" className="btn sm" onClick={edit}>
            Edit
          </button>
          <button type="button" className="btn sm ghost" onClick={discard}>
            Discard
          </button>
        </div>
      </div>
    </article>
  );
}
