/**
 * Results of the last visit that nobody shows yet are brought up to date when the page has nothing else to do: one at a
 * time, the last used first, only while it is seen, and never for somebody who saves data.
 */

import { pause } from './tasks.ts';

export interface BackgroundHost {
  /** The queries of the last visit, the last used first. */
  queries(): readonly string[];
  /** Something is fetched for somebody who waits for it. */
  isBusy(): boolean;
  /** Bring one up to date; resolves with whether it could be. */
  refresh(query: string, signal: AbortSignal): Promise<boolean>;
}

const IDLE_MS = 200;

/** Go through all once; returns what ends that. A failure ends it too: the next visit comes. */
export function refreshInBackground(host: BackgroundHost): () => void {
  const control = new AbortController();
  if (typeof document !== 'undefined' && !savesData()) void refreshAll(host, control.signal);
  return () => control.abort();
}

async function refreshAll(host: BackgroundHost, signal: AbortSignal): Promise<void> {
  for (const query of host.queries()) {
    do await idle(signal);
    while (host.isBusy() && !signal.aborted);
    if (signal.aborted || !(await host.refresh(query, signal))) return;
  }
}

/** Resolve when the page is seen and has nothing to do, or `signal` is aborted. */
async function idle(signal: AbortSignal): Promise<void> {
  await pause(IDLE_MS, signal);
  await visible(signal);
  if (typeof requestIdleCallback === 'function') await new Promise((resolve) => requestIdleCallback(resolve));
}

function visible(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (document.visibilityState === 'visible' || signal.aborted) return resolve();
    document.addEventListener('visibilitychange', () => resolve(visible(signal)), { once: true, signal });
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

function savesData(): boolean {
  const { connection } = navigator as Navigator & { readonly connection?: { readonly saveData?: boolean } };
  return connection?.saveData === true;
}
