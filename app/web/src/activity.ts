/** What an agent did last, of what is known: it spoke, it remembered something, or somebody changed it. */

import type { AgentChange } from './changes.tsx';
import type { AgentOverview } from './hub.ts';

export interface LastChange {
  readonly what: string;
  readonly at: Date;
}

export function lastChangeOf(overview: AgentOverview, changes: readonly AgentChange[]): LastChange {
  const { agent, last_message, last_memory_at } = overview;
  const seen = changes.find((one) => one.agentId === agent.id);
  const candidates: LastChange[] = [{ what: 'Created', at: agent.created_at }];
  if (last_message !== null) candidates.push({ what: 'Sent a message', at: last_message.created_at });
  if (last_memory_at !== null) candidates.push({ what: 'Added a memory', at: last_memory_at });
  if (seen !== undefined) candidates.push(seen);
  return candidates.reduce((last, one) => (one.at > last.at ? one : last));
}
