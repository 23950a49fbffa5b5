/** Making an agent, changing one, and deleting it. */

import { type FormEvent, type ReactNode, useId, useState } from 'react';

import { useVoice } from './announce.tsx';
import { Dialog } from './dialog.tsx';
import { type Agent, useReactiveClient } from './hub.ts';
import { Icon } from './icon.tsx';
import { go } from './route.ts';

export interface AgentDialogProps {
  /** The one that is changed; left out, a new one is made. */
  readonly agent?: Agent;
  readonly close: () => void;
}

export function AgentDialog({ agent, close }: AgentDialogProps): ReactNode {
  const hub = useReactiveClient();
  const { say } = useVoice();
  const [failure, setFailure] = useState<string | null>(null);
  const [isBusy, setBusy] = useState(false);
  const submit = async (event: FormEvent<HTMLFormElement>): Promise<void> => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const [name, role, description] = ['name', 'role', 'description'].map((field) => String(form.get(field)).trim());
    if (isBusy || !name || !role) return setFailure('A name and a role are needed.');
    setBusy(true);
    const fields = { name, role, description: description || null };
    try {
      if (agent === undefined) await hub.call('agents.create', fields);
      else await hub.call('agents.update', { agent_id: agent.id, ...fields });
      say(agent === undefined ? `${name} is made` : `${name} is changed`);
      close();
    } catch {
      setBusy(false);
      setFailure('It could not be saved. What you wrote is still here; try again.');
    }
  };
  return (
    <Dialog title={agent === undefined ? 'New agent' : `Edit ${agent.name}`} close={close}>
      <form className="fields" onSubmit={(event) => void submit(event)} noValidate>
        <Field name="name" label="Name" value={agent?.name ?? ''} />
        <Field name="role" label="Role" value={agent?.role ?? 'Assistant'} />
        <Field name="description" label="What it does" value={agent?.description ?? ''} />
        {failure !== null && (
          <p className="hint bad" role="alert">
            <Icon name="circle-alert" look="s" />
            {failure}
          </p>
        )}
        <div className="row">
          {agent !== undefined && <DeleteButton agent={agent} fail={setFailure} />}
          <span className="grow" />
          <button type="button" className="btn" onClick={close}>
            Cancel
          </button>
          <button type="submit" className="btn primary" aria-disabled={isBusy}>
            {agent === undefined ? 'Make agent' : 'Save'}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function Field({
  name,
  label,
  value,
}: {
  readonly name: string;
  readonly label: string;
  readonly value: string;
}): ReactNode {
  const id = useId();
  const most = name === 'description' ? 1000 : 100;
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input className="input" id={id} name={name} defaultValue={value} maxLength={most} autoComplete="off" />
    </div>
  );
}

/** The first press asks, the second deletes. */
function DeleteButton({ agent, fail }: { readonly agent: Agent; readonly fail: (why: string) => void }): ReactNode {
  const hub = useReactiveClient();
  const { toast } = useVoice();
  const [isAsked, setAsked] = useState(false);
  const press = async (): Promise<void> => {
    if (!isAsked) return setAsked(true);
    try {
      const { message_count, memory_count } = await hub.call('agents.delete', { agent_id: agent.id });
      go({ view: 'agents' });
      toast({
        title: `${agent.name} is deleted`,
        text: `With ${message_count} messages and ${memory_count} memories.`,
      });
    } catch {
      fail(`${agent.name} could not be deleted. Try again.`);
    }
  };
  return (
    <button type="button" className="btn danger" onClick={() => void press()}>
      <Icon name="trash" />
      {isAsked ? `Delete ${agent.name} and its messages` : 'Delete'}
    </button>
  );
}
