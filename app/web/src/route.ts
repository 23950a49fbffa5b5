/** Addresses of the page are paths, so that each can be reloaded, shared and gone back to. */

import { type MouseEvent, useSyncExternalStore } from 'react';

export type Route =
  | { readonly view: 'agents' }
  | { readonly view: 'agent'; readonly agentId: string }
  | { readonly view: 'search'; readonly text: string };

const listeners = new Set<() => void>();
let route = current();

addEventListener('popstate', notice);

/** Return what the address names. */
export function useRoute(): Route {
  return useSyncExternalStore(listen, () => route);
}

/** Return the address of a view. */
export function pathOf(to: Route): string {
  switch (to.view) {
    case 'agents':
      return '/';
    case 'agent':
      return `/agents/${encodeURIComponent(to.agentId)}`;
    case 'search':
      return to.text === '' ? '/search' : `/search?q=${encodeURIComponent(to.text)}`;
  }
}

/** Go to a view; `replace` leaves no entry in the history, for what is typed. */
export function go(to: Route, replace = false): void {
  history[replace ? 'replaceState' : 'pushState'](null, '', pathOf(to));
  notice();
}

/** Return what a link needs: the address, and a click that loads nothing. */
export function linkTo(to: Route): { href: string; onClick: (event: MouseEvent) => void } {
  const onClick = (event: MouseEvent): void => {
    const opensElsewhere = event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button !== 0;
    if (opensElsewhere || event.defaultPrevented) return;
    event.preventDefault();
    go(to);
  };
  return { href: pathOf(to), onClick };
}

function notice(): void {
  route = current();
  for (const listener of [...listeners]) listener();
}

function listen(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function current(): Route {
  const [, first, second] = location.pathname.split('/');
  if (first === 'agents' && second) return { view: 'agent', agentId: decodeURIComponent(second) };
  if (first === 'search') return { view: 'search', text: new URLSearchParams(location.search).get('q') ?? '' };
  return { view: 'agents' };
}
