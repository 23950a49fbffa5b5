/** What an agent remembers, and can use. */

import { type FormEvent, type ReactNode, useState } from 'react';

import { useVoice } from './announce.tsx';
import { Bone } from './blank.tsx';
import { tinted, useChanged } from './changes.tsx';
import { type Memory, useReactive, useReactiveClient } from './hub.ts';
import { Icon } from './icon.tsx';
import type { IconName } from './icon-names.ts';
import { count, Moment } from './time.tsx';

const SHOWN = 5;
const ALL = 200;

export interface RailProps {
  readonly agentId: string;
  readonly name: string | undefined;
  readonly memoryCount: number | undefined;
}

export function Rail({ agentId, name = '', memoryCount }: RailProps): ReactNode {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls is reached by the keyboard
    <aside className="rail" aria-label={`About ${name || 'the agent'}`} tabIndex={0}>
      <Memories key={agentId} agentId={agentId} name={name} memoryCount={memoryCount} />
      <Tools />
    </aside>
  );
}

function Memories({ agentId, name, memoryCount }: RailProps): ReactNode {
  const [limit, setLimit] = useState(SHOWN);
  const [isAdding, setAdding] = useState(false);
  const { data: memories } = useReactive('memory.recent', { agent_id: agentId, limit });
  const changed = tinted(useChanged(memories, idOf));
  return (
    <section className="memories">
      <header>
        <h2>Memory</h2>
        {memoryCount !== undefined && <span className="n num">{count(memoryCount)}</span>}
        <button type="button" className="btn ghost sm" aria-expanded={isAdding} onClick={() => setAdding(!isAdding)}>
          <Icon name="plus" look="s" />
          Add
        </button>
      </header>
      {isAdding && <NewMemory agentId={agentId} close={() => setAdding(false)} />}
      {memories === undefined && <MemoryBones />}
      {memories?.length === 0 && <p className="dim small">{name} remembers nothing yet.</p>}
      {memories?.map((memory) => (
        <div key={memory.id} className={changed.has(memory.id) ? 'mem changed' : 'mem'}>
          {memory.content}
          <Moment at={memory.created_at} ago />
        </div>
      ))}
      {memoryCount !== undefined && memoryCount > limit && limit < ALL && (
        <button type="button" className="link small" onClick={() => setLimit(ALL)}>
          Show all {count(Math.min(memoryCount, ALL))}
        </button>
      )}
    </section>
  );
}

function NewMemory({ agentId, close }: { readonly agentId: string; readonly close: () => void }): ReactNode {
  const hub = useReactiveClient();
  const { say } = useVoice();
  const [text, setText] = useState('');
  const [isRefused, setRefused] = useState(false);
  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    if (text.trim() === '') return;
    try {
      await hub.call('memory.add', { agent_id: agentId, content: text.trim() });
      say('Added');
      close();
    } catch {
      setRefused(true);
    }
  };
  return (
    <form className="fields" onSubmit={(event) => void submit(event)}>
      <input
        className="input"
        aria-label="What to remember"
        placeholder="What to remember"
        value={text}
        maxLength={4000}
        ref={focused}
        onChange={(event) => setText(event.target.value)}
      />
      {isRefused && (
        <p className="hint bad" role="alert">
          It could not be saved. Try again.
        </p>
      )}
      <div className="row">
        <button type="submit" className="btn sm primary">
          Remember
        </button>
        <button type="button" className="btn sm ghost" onClick={close}>
          Cancel
        </button>
      </div>
    </form>
  );
}

const ICONS: Readonly<Record<string, IconName>> = {
  Calculator: 'calculator',
  Calendar: 'calendar',
  'Code runner': 'square-terminal',
  Mail: 'mail',
  Search: 'search',
};

function Tools(): ReactNode {
  const { data: tools } = useReactive('tools.available');
  return (
    <section className="tools">
      <header>
        <h2>Tools</h2>
        {tools !== undefined && <span className="n num">{count(tools.length)}</span>}
      </header>
      {tools?.length === 0 && <p className="dim small">Your organization has none.</p>}
      {tools?.map((tool) => (
        <div className="tool" key={tool.id} title={tool.description}>
          <Icon name={ICONS[tool.name] ?? 'wrench'} />
          <span className="truncate">{tool.name}</span>
        </div>
      ))}
    </section>
  );
}

function MemoryBones(): ReactNode {
  return (
    <div aria-hidden="true">
      {[85, 72, 90, 64].map((width) => (
        <div className="mem" key={width}>
          <Bone width={`${width}%`} />
          <time>
            <Bone width={64} height={8} />
          </time>
        </div>
      ))}
    </div>
  );
}

function focused(field: HTMLInputElement | null): void {
  field?.focus();
}

function idOf(memory: Memory): string {
  return memory.id;
}
