/** Writing as an agent. */

import type { FormEvent, KeyboardEvent, ReactNode } from 'react';

import type { AgentOverview } from './hub.ts';
import { Icon } from './icon.tsx';
import { newOutgoing, type Outgoing } from './sending.ts';

export interface Draft {
  readonly text: string;
  readonly to: string;
}

export interface ComposerProps {
  readonly agentId: string;
  readonly name: string;
  readonly draft: Draft;
  readonly setDraft: (draft: Draft) => void;
  readonly send: (outgoing: Outgoing) => void;
  readonly agents: readonly AgentOverview[];
}

export function Composer({ agentId, name, draft, setDraft, send, agents }: ComposerProps): ReactNode {
  const others = agents.map(({ agent }) => agent).filter(({ id }) => id !== agentId);
  const submit = (event?: FormEvent): void => {
    event?.preventDefault();
    const body = draft.text.trim();
    if (body === '') return;
    send(newOutgoing(agentId, draft.to, body));
    setDraft({ ...draft, text: '' });
  };
  const press = (event: KeyboardEvent): void => {
    if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    submit();
  };
  return (
    <form className="compose" onSubmit={submit}>
      <div className="box">
        <label className="sr" htmlFor="message">
          Message as {name}
        </label>
        <textarea
          id="message"
          rows={1}
          maxLength={4000}
          placeholder={`Write as ${name}`}
          value={draft.text}
          onChange={(event) => setDraft({ ...draft, text: event.target.value })}
          onKeyDown={press}
        />
        <div className="row">
          <label className="sr" htmlFor="receiver">
            To
          </label>
          <select
            id="receiver"
            className="btn sm"
            value={draft.to}
            onChange={(event) => setDraft({ ...draft, to: event.target.value })}
          >
            <option value="">To: everyone</option>
            {others.map((agent) => (
              <option key={agent.id} value={agent.id}>
                To: {agent.name}
              </option>
            ))}
            {draft.to !== '' && !others.some(({ id }) => id === draft.to) && (
              <option value={draft.to}>To: an agent that is gone</option>
            )}
          </select>
          <span className="grow" />
          <span className="small dim desk row" aria-hidden="true">
            <kbd className="kbd">Enter</kbd> to send
          </span>
          <button type="submit" className="btn primary sm">
            <Icon name="send" look="s" />
            Send
          </button>
        </div>
      </div>
    </form>
  );
}
