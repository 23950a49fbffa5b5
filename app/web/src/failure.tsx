/** A page whose data did not come: what failed, in whose terms, and what can be done. */

import { type ReactNode, useState } from 'react';

import { Blank } from './blank.tsx';
import { ReactiveError, useReactiveClient } from './hub.ts';
import { Icon } from './icon.tsx';
import { linkTo } from './route.ts';
import { logOut, useSession } from './session.ts';

export interface FailureProps {
  /** What could not be loaded: "The agents", "Ada". */
  readonly what: string;
  readonly error: Error;
}

/** Tell whether the server has said that there is nothing for this caller; it does not say whether it exists. */
export function isForbidden(error: Error | null): boolean {
  return error instanceof ReactiveError && (error.code === 'NOT_FOUND' || error.code === 'FORBIDDEN');
}

export function Failure({ what, error }: FailureProps): ReactNode {
  const hub = useReactiveClient();
  const [isCopied, setCopied] = useState(false);
  const copy = (): void => {
    void navigator.clipboard.writeText(detailsOf(error)).then(() => setCopied(true));
  };
  return (
    <Blank
      icon="circle-alert"
      title={`${what} could not be loaded`}
      text={`${reasonOf(error)} This page tries again by itself; nothing you did is lost.`}
      level={1}
    >
      <button type="button" className="btn" onClick={() => hub.retry()}>
        <Icon name="refresh-cw" />
        Try again
      </button>
      <button type="button" className="btn ghost" onClick={copy}>
        {isCopied ? 'Copied' : 'Copy details'}
      </button>
    </Blank>
  );
}

/** What is another organization's, or nobody's. */
export function Forbidden(): ReactNode {
  const session = useSession();
  return (
    <Blank
      icon="lock"
      title="There is no such agent here"
      text={`You are logged in as ${session?.email}. An agent of another organization is not shown, nor whether there is one.`}
      level={1}
    >
      <a className="btn" {...linkTo({ view: 'agents' })}>
        Back to agents
      </a>
      <button type="button" className="btn ghost" onClick={logOut}>
        Log in as somebody else
      </button>
    </Blank>
  );
}

function reasonOf(error: Error): string {
  const { code, status } = error instanceof ReactiveError ? error : { code: '', status: 0 };
  if (code === 'CONNECTION_FAILED') return 'The server did not answer.';
  if (status === 503) return 'The database did not answer.';
  if (status === 429) return 'The server is asked too often.';
  return 'The server could not answer.';
}

function detailsOf(error: Error): string {
  const about =
    error instanceof ReactiveError
      ? { code: error.code, status: error.status, type: error.type, requestId: error.requestId }
      : {};
  return JSON.stringify({ ...about, message: error.message, page: location.pathname, at: new Date().toISOString() });
}
