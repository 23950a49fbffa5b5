/** The page: a login, or the view that the address names. */

import './styles/tokens.css';
import './styles/teamhub.css';
import './styles/page.css';

import { type ReactNode, StrictMode, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';

import { AgentPage } from './agent.tsx';
import { AgentsPage } from './agents.tsx';
import { VoiceProvider } from './announce.tsx';
import { type Hub, openHub, ReactiveProvider } from './hub.ts';
import { LoginPage } from './login.tsx';
import { useRoute } from './route.ts';
import { SearchPage } from './search.tsx';
import { isLoggedOut, type Session, useSession } from './session.ts';
import { Shell } from './shell.tsx';

function Page(): ReactNode {
  const session = useSession();
  useTitle(session === null);
  return session === null ? <LoginPage /> : <LoggedIn key={session.token} session={session} />;
}

function LoggedIn({ session }: { readonly session: Session }): ReactNode {
  const [hub, setHub] = useState<Hub | null>(null);
  useEffect(() => {
    const opened = openHub(session);
    setHub(opened);
    return () => {
      // Logged out in another tab, whose word may come later than this: what waits to be kept must not be.
      if (isLoggedOut()) opened.forget();
      opened.close();
    };
  }, [session]);
  if (hub === null) return null;
  return (
    <ReactiveProvider reactive={hub}>
      <VoiceProvider>
        <Shell>
          <View />
        </Shell>
      </VoiceProvider>
    </ReactiveProvider>
  );
}

function View(): ReactNode {
  const route = useRoute();
  switch (route.view) {
    case 'agents':
      return <AgentsPage />;
    case 'agent':
      return <AgentPage key={route.agentId} agentId={route.agentId} />;
    case 'search':
      return <SearchPage text={route.text} />;
  }
}

function useTitle(isLogin: boolean): void {
  const { view } = useRoute();
  const title = isLogin ? 'Log in' : view === 'search' ? 'Search' : view === 'agent' ? 'Agent' : 'Agents';
  useEffect(() => {
    document.title = `${title} · TeamHub`;
  }, [title]);
}

const root = document.getElementById('root');
if (root === null) throw new Error('the document has no #root');
createRoot(root).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
