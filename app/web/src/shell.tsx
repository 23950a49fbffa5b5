/** What stands around every view: the sidebar, the bar of small pages, banners. */

import { type ReactNode, useEffect, useRef, useState } from 'react';

import { lastChangeOf } from './activity.ts';
import { ChangesProvider, useObservedAgents } from './changes.tsx';
import { Connection, ConnectionBanner, isDoubtful } from './connection.tsx';
import { Dialog } from './dialog.tsx';
import { useReactive, useReactiveClient, useReactiveStatus } from './hub.ts';
import { Avatar, Icon, Mark } from './icon.tsx';
import { go, linkTo, useRoute } from './route.ts';
import { logOut, useSession } from './session.ts';
import { chooseTheme, THEMES, useTheme } from './theme.ts';
import { ClockProvider, count } from './time.tsx';

/** How many agents the sidebar names. */
const NAMED = 5;

export function Shell({ children }: { readonly children: ReactNode }): ReactNode {
  const { data } = useReactive('agents.get_overview');
  const changes = useObservedAgents(data);
  const { state } = useReactiveStatus();
  const [isMoreOpen, setMoreOpen] = useState(false);
  const more = (): void => setMoreOpen(true);
  useSlashKey();
  return (
    <ClockProvider isDoubtful={isDoubtful(state)}>
      <ChangesProvider changes={changes}>
        <a className="skip" href="#main">
          Skip to content
        </a>
        <div className="app" data-doubtful={isDoubtful(state)}>
          <Sidebar more={more} />
          <Content>{children}</Content>
          <TabBar more={more} />
        </div>
        {isMoreOpen && <MoreDialog close={() => setMoreOpen(false)} />}
      </ChangesProvider>
    </ClockProvider>
  );
}

/** The view. The focus goes to it when another one is shown, so that a screen reader begins there. */
function Content({ children }: { readonly children: ReactNode }): ReactNode {
  const main = useRef<HTMLElement>(null);
  const route = useRoute();
  const name = route.view === 'agent' ? route.agentId : route.view;
  const shown = useRef(name);
  useEffect(() => {
    if (shown.current === name) return;
    shown.current = name;
    if (route.view !== 'search') main.current?.focus();
  }, [name, route.view]);
  return (
    <main className="page" id="main" tabIndex={-1} ref={main}>
      <ConnectionBanner />
      {children}
    </main>
  );
}

function Sidebar({ more }: { readonly more: () => void }): ReactNode {
  const { data: organization } = useReactive('organizations.get_mine');
  const { data: agents } = useReactive('agents.get_overview');
  const session = useSession();
  const { view } = useRoute();
  return (
    <nav className="side" aria-label="Main">
      <p className="org">
        <Mark />
        <span className="lbl truncate">{organization?.name ?? 'TeamHub'}</span>
      </p>
      <a className="find" {...linkTo({ view: 'search', text: '' })} aria-keyshortcuts="/">
        <Icon name="search" />
        <span className="lbl">Search</span>
        <span className="kbd" aria-hidden="true">
          /
        </span>
      </a>
      <ul className="nav">
        <li>
          <a {...linkTo({ view: 'agents' })} aria-current={view === 'search' ? undefined : 'page'}>
            <Icon name="bot" />
            <span className="lbl">Agents</span>
            {agents !== undefined && agents.length > 0 && (
              <span className="n num" aria-hidden="true">
                {count(agents.length)}
              </span>
            )}
          </a>
        </li>
      </ul>
      <LatelyActive />
      <div className="foot">
        <Connection />
        <button type="button" className="me" aria-haspopup="dialog" onClick={more}>
          <Avatar name={session?.email ?? ''} look="s round" />
          <span className="lbl truncate">{session?.email}</span>
        </button>
      </div>
    </nav>
  );
}

/** The agents that did something last. */
function LatelyActive(): ReactNode {
  const { data: agents = [] } = useReactive('agents.get_overview');
  const lately = agents
    .filter(({ agent }) => agent.is_active)
    .map((one) => ({ agent: one.agent, at: lastChangeOf(one, []).at }))
    .sort((one, other) => other.at.getTime() - one.at.getTime())
    .slice(0, NAMED);
  if (lately.length === 0) return null;
  return (
    <div className="nav desk">
      <h2>Lately active</h2>
      <ul>
        {lately.map(({ agent }) => (
          <li key={agent.id}>
            <a className="lbl" {...linkTo({ view: 'agent', agentId: agent.id })}>
              <Avatar name={agent.name} look="s" />
              <span className="lbl truncate">{agent.name}</span>
            </a>
          </li>
        ))}
      </ul>
    </div>
  );
}

function TabBar({ more }: { readonly more: () => void }): ReactNode {
  const { view } = useRoute();
  return (
    <nav className="tabbar" aria-label="Main, small">
      <a {...linkTo({ view: 'agents' })} aria-current={view === 'search' ? undefined : 'page'}>
        <Icon name="bot" />
        Agents
      </a>
      <a {...linkTo({ view: 'search', text: '' })} aria-current={view === 'search' ? 'page' : undefined}>
        <Icon name="search" />
        Search
      </a>
      <button type="button" aria-haspopup="dialog" onClick={more}>
        <Icon name="menu" />
        More
      </button>
    </nav>
  );
}

function MoreDialog({ close }: { readonly close: () => void }): ReactNode {
  const { data: organization } = useReactive('organizations.get_mine');
  const hub = useReactiveClient();
  const session = useSession();
  const theme = useTheme();
  const leave = (): void => {
    hub.forget();
    logOut();
    go({ view: 'agents' });
  };
  return (
    <Dialog title={organization?.name ?? 'TeamHub'} close={close}>
      <fieldset className="it">
        <legend className="sr">Appearance</legend>
        <Icon name="sun-moon" />
        <span className="grow" aria-hidden="true">
          Appearance
        </span>
        <span className="seg">
          {THEMES.map((one) => (
            <button key={one} type="button" aria-pressed={theme === one} onClick={() => chooseTheme(one)}>
              {one === 'system' ? 'System' : one === 'light' ? 'Light' : 'Dark'}
            </button>
          ))}
        </span>
      </fieldset>
      <button type="button" className="it" onClick={leave}>
        <Icon name="log-out" />
        <span className="grow">Log out</span>
        <span className="dim truncate">{session?.email}</span>
      </button>
      <Connection />
    </Dialog>
  );
}

/** `/` goes to the search, unless somebody is writing. */
function useSlashKey(): void {
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      const isWriting =
        event.target instanceof Element && event.target.closest('input, textarea, select, dialog') !== null;
      if (event.key !== '/' || isWriting || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      go({ view: 'search', text: '' });
      document.getElementById('q')?.focus();
    };
    document.addEventListener('keydown', press);
    return () => document.removeEventListener('keydown', press);
  }, []);
}
