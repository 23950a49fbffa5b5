/** Actions as the vectors spell them, and what shows of a snapshot: the twin of `tests/unit/client/acting.py`. */

import { type Action, type Snapshot, stateOf, type Update } from '../../../reactive_rpc/typescript/runtime/state.ts';
import { formatVersion, parseVersion, type Version } from '../../../reactive_rpc/typescript/runtime/versions.ts';

export type Rows = readonly string[];

/** An update as data: the list `[set]`, or the list with one more row. */
export type SpelledUpdate = { readonly set: string } | { readonly append: string };

export interface SpelledAction {
  readonly t: string;
  readonly [field: string]: unknown;
}

export interface Step {
  readonly do: SpelledAction;
  readonly then?: Readonly<Record<string, unknown>>;
}

export interface Vector {
  readonly name: string;
  readonly steps: readonly Step[];
}

/** The vectors' name of each action that is called otherwise here. */
const RENAMED: Readonly<Record<string, string>> = { op: 'opMade' };

export function updateOf(spelled: SpelledUpdate): Update<Rows> {
  return 'set' in spelled ? () => [spelled.set] : (rows) => [...(rows ?? []), spelled.append];
}

export function actionOf(spelled: SpelledAction): Action<Rows> {
  const { t, ...fields } = spelled;
  const read = Object.entries(fields).map(([name, value]) => [name, fieldOf(name, value)]);
  return { ...Object.fromEntries(read), type: RENAMED[t] ?? t };
}

function fieldOf(name: string, value: unknown): unknown {
  if (value === null) return null;
  if (name === 'version' || name === 'notifiedUpTo') return parseVersion(String(value));
  if (name === 'apply') return updateOf(value as SpelledUpdate);
  return name === 'error' ? new Error(String(value)) : value;
}

/** Return an action as the vectors spell it; `update` is that of an op. */
export function spelled(action: Action<Rows>, update: SpelledUpdate | null = null): SpelledAction {
  const { type, ...fields } = action;
  const written = Object.entries(fields).map(([name, value]: [string, unknown]) => [name, spelledField(name, value)]);
  return { t: type === 'opMade' ? 'op' : type, ...Object.fromEntries(written), ...(update && { apply: update }) };
}

function spelledField(name: string, value: unknown): unknown {
  if (value === null || value === undefined) return null;
  if (name === 'version' || name === 'notifiedUpTo') return formatVersion(value as Version);
  return value instanceof Error ? value.message : value;
}

/** Return what shows, under the vectors' names. */
export function seenOf(s: Snapshot<Rows>): Record<string, unknown> {
  const state = stateOf(s);
  return {
    shown: state.data ?? null,
    isStale: state.isStale,
    isPending: state.isPending,
    isLoading: state.isLoading,
    wanted: s.wanted,
    error: state.error?.message ?? null,
  };
}
