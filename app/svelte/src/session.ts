/** Who is logged in: a token in the browser's storage, the same as that of the page in React. */

export interface Session {
  readonly email: string;
  readonly token: string;
}

const KEY = 'teamhub:session';

/** Log in, and return the session; null if no account has this address and password. */
export async function logIn(email: string, password: string): Promise<Session | null> {
  const response = await fetch('/login', { method: 'POST', body: new URLSearchParams({ username: email, password }) });
  if (!response.ok) return null;
  const { access_token: token }: { access_token: string } = await response.json();
  const session = { email: email.trim().toLowerCase(), token };
  localStorage.setItem(KEY, JSON.stringify(session));
  return session;
}

/** Forget who is logged in. */
export function logOut(): void {
  localStorage.removeItem(KEY);
}

/** Return the session of the last visit, if there is one. */
export function storedSession(): Session | null {
  const { email, token }: Record<string, unknown> = JSON.parse(localStorage.getItem(KEY) ?? '{}');
  return typeof email === 'string' && typeof token === 'string' ? { email, token } : null;
}
