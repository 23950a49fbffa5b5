/** Editing a message. If somebody else changes it meanwhile, both texts are shown, and nothing is lost. */

import { type KeyboardEvent, type ReactNode, useEffect, useRef, useState } from 'react';

import { useVoice } from './announce.tsx';
import { type Message, ReactiveError, useReactiveClient } from './hub.ts';
import { Avatar, Icon } from './icon.tsx';
import { By } from './message.tsx';
import { compared } from './words.ts';

export interface MessageEditorProps {
  readonly message: Message;
  readonly names: ReadonlyMap<string, string>;
  readonly close: () => void;
}

export function MessageEditor({ message, names, close }: MessageEditorProps): ReactNode {
  const { draft, setDraft, base, theirs, failure, save, takeTheirs } = useEditing(message, close);
  const isClash = theirs !== base;
  return (
    <article className={isClash ? 'msg clash' : 'msg editing'}>
      <Avatar name={names.get(message.from_agent_id) ?? '?'} />
      <div>
        <By message={message} names={names} />
        {isClash ? (
          <Clash theirs={theirs} mine={draft} takeTheirs={takeTheirs} saveMine={() => save(theirs)} close={close} />
        ) : (
          <>
            <Field value={draft} change={setDraft} save={() => save(base)} close={close} />
            {failure !== null && (
              <p className="state bad" role="alert">
                <Icon name="circle-alert" look="s" />
                {failure}
              </p>
            )}
            <div className="acts">
              <button type="button" className="btn sm primary" onClick={() => save(base)}>
                Save
              </button>
              <button type="button" className="btn sm ghost" onClick={close}>
                Cancel
              </button>
            </div>
          </>
        )}
      </div>
    </article>
  );
}

function useEditing(message: Message, close: () => void) {
  const hub = useReactiveClient();
  const { say } = useVoice();
  const [base, setBase] = useState(message.body);
  const [draft, setDraft] = useState(message.body);
  const [isSaving, setSaving] = useState(false);
  const [refused, setRefused] = useState<string | null>(null);
  const [failure, setFailure] = useState<string | null>(null);
  // While it is saved, the message shows the own text by an optimistic update.
  const theirs = isSaving ? base : (refused ?? message.body);
  const save = async (expected: string): Promise<void> => {
    const body = draft.trim();
    if (body === '' || isSaving) return;
    if (body === message.body) return close();
    setSaving(true);
    setFailure(null);
    try {
      await hub.call(
        'messages.edit',
        { message_id: message.id, body, expected },
        {
          optimistic: (on) =>
            on('messages.get_all', null, (page) => ({
              ...page,
              items: page.items.map((one) => (one.id === message.id ? { ...one, body } : one)),
            })),
        },
      );
      say('Saved');
      close();
    } catch (thrown) {
      setSaving(false);
      const now = bodyNow(thrown);
      if (now === null) setFailure('Not saved: the server did not take it. What you wrote is still here.');
      else setRefused(now);
    }
  };
  const takeTheirs = (): void => {
    setBase(theirs);
    setDraft(theirs);
    setRefused(null);
  };
  return { draft, setDraft, base, theirs, failure, save: (expected: string) => void save(expected), takeTheirs };
}

interface FieldProps {
  readonly value: string;
  readonly change: (text: string) => void;
  readonly save: () => void;
  readonly close: () => void;
}

function Field({ value, change, save, close }: FieldProps): ReactNode {
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    field.current?.focus();
    field.current?.setSelectionRange(-1, -1);
  }, []);
  const press = (event: KeyboardEvent): void => {
    if (event.key === 'Escape') close();
    if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    save();
  };
  return (
    <textarea
      ref={field}
      className="input area"
      aria-label="Text of the message"
      value={value}
      maxLength={4000}
      onChange={(event) => change(event.target.value)}
      onKeyDown={press}
    />
  );
}

interface ClashProps {
  readonly theirs: string;
  readonly mine: string;
  readonly takeTheirs: () => void;
  readonly saveMine: () => void;
  readonly close: () => void;
}

/** What is prominent keeps what the other has written. */
function Clash({ theirs, mine, takeTheirs, saveMine, close }: ClashProps): ReactNode {
  return (
    <>
      <p className="state" role="alert">
        <Icon name="git-merge" look="s" />
        Somebody changed this message while you were editing it.
      </p>
      <div className="two">
        <div>
          <p className="t3">Theirs, saved</p>
          {compared(theirs, mine).map(({ at, text, isOwn }) => (isOwn ? <ins key={at}>{text}</ins> : text))}
        </div>
        <div>
          <p className="t3">Yours, not saved</p>
          {compared(mine, theirs).map(({ at, text, isOwn }) => (isOwn ? <del key={at}>{text}</del> : text))}
        </div>
      </div>
      <div className="acts">
        <button type="button" className="btn sm primary" onClick={takeTheirs}>
          Keep editing from theirs
        </button>
        <button type="button" className="btn sm" onClick={saveMine}>
          Save mine instead
        </button>
        <button type="button" className="btn sm ghost" onClick={close}>
          Discard mine
        </button>
      </div>
    </>
  );
}

/** Return what the message says now, if that is why it was refused. */
function bodyNow(thrown: unknown): string | null {
  if (!(thrown instanceof ReactiveError) || thrown.type !== 'MessageChanged') return null;
  const { details } = thrown;
  const isThere = typeof details === 'object' && details !== null && 'body' in details;
  return isThere && typeof details.body === 'string' ? details.body : null;
}
