/** Who is logged in: a token in the browser's storage, so that a reload and another tab need no password. */

import { useSyncExternalStore } from 'react';

export interface Session {
  readonly email: string;
  readonly token: string;
}

export type LoginFailure = 'refused' | 'unreachable';

const KEY = 'teamhub:session';
const listeners = new Set<() => void>();
let session = read();
let hasExpired = false;

addEventListener('storage', (event) => {
  if (event.key !== KEY && event.key !== null) return;
  become(read());
});

/** Return the session of this browser, or null; a component renders again when it changes, in another tab too. */
export function useSession(): Session | null {
  return useSyncExternalStore(listen, () => session);
}

/** Log in; returns why it failed, or null. */
export async function logIn(email: string, password: string): Promise<LoginFailure | null> {
  const body = new URLSearchParams({ username: email, password });
  const response = await fetch('/login', { method: 'POST', body }).catch(() => null);
  if (response === null || response.status >= 500) return 'unreachable';
  if (!response.ok) return 'refused';
  const { access_token: token }: { access_token: string } = await response.json();
  store({ email: email.trim().toLowerCase(), token });
  return null;
}

/** Log out: nothing that says who was here stays in storage. */
export function logOut(): void {
  hasExpired = false;
  store(null);
}

/** The server takes the session no longer; who it was of may log in again, and finds what waits to be sent. */
export function expire(): void {
  hasExpired = true;
  store(null);
}

/** Tell whether somebody has logged out, here or in another tab. */
export function isLoggedOut(): boolean {
  return session === null && !hasExpired;
}

function store(next: Session | null): void {
  try {
    if (next === null) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, JSON.stringify(next));
  } catch {
    // Storage is forbidden or full: the session lasts as long as the page.
  }
  become(next);
}

function become(next: Session | null): void {
  session = next;
  for (const listener of [...listeners]) listener();
}

function listen(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function read(): Session | null {
  try {
    const { email, token }: Record<string, unknown> = JSON.parse(localStorage.getItem(KEY) ?? '{}');
    return typeof email === 'string' && typeof token === 'string' ? { email, token } : null;
  } catch {
    return null;
  }
}
