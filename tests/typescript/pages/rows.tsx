/** A list of many rows in React, each of which counts how often it is rendered. */

import { memo, type ReactNode } from 'react';
import { createRoot } from 'react-dom/client';

import type { Agent } from '../../../generated_client/typescript/api.ts';
import { ReactiveProvider, useReactive } from '../../../generated_client/typescript/react.ts';
import { orders, Page } from './page.ts';

/** How often each row was rendered, and the object that it was rendered from. */
const rows = new Map<string, { count: number; agent: Agent }>();
/** How long the page's thread was held up, each time that it was for 50 ms or more, in milliseconds. */
const longTasks: number[] = [];

new PerformanceObserver((list) => {
  longTasks.push(...list.getEntries().map((entry) => entry.duration));
}).observe({ type: 'longtask' });

const Row = memo(function Row({ agent }: { readonly agent: Agent }): ReactNode {
  rows.set(agent.id, { count: (rows.get(agent.id)?.count ?? 0) + 1, agent });
  return (
    <li id={agent.id}>
      {agent.name}: {agent.role}, since {agent.created_at.toISOString()}
    </li>
  );
});

function Rows(): ReactNode {
  const { data = [] } = useReactive('agents.get_all');
  return (
    <ul>
      {data.map((agent) => (
        <Row key={agent.id} agent={agent} />
      ))}
    </ul>
  );
}

const page = new Page(orders());
Object.assign(globalThis, { page, rows, longTasks });
const main = document.querySelector('main');
if (main !== null)
  createRoot(main).render(
    <ReactiveProvider reactive={page.hub}>
      <Rows />
    </ReactiveProvider>,
  );
