/** Logging in. */

import { type FormEvent, type ReactNode, useRef, useState } from 'react';

import { Avatar, Icon, Mark } from './icon.tsx';
import { type LoginFailure, logIn } from './session.ts';

const FAILURES = {
  refused: ['circle-alert', 'No account has this address and password.'],
  unreachable: ['wifi-off', 'The server cannot be reached. Try again in a moment.'],
} as const satisfies Record<LoginFailure, readonly [string, string]>;

export function LoginPage(): ReactNode {
  return (
    <div className="login">
      <main>
        <LoginForm />
      </main>
      <aside aria-label="What TeamHub is">
        <div className="demo">
          <blockquote>Whoever writes it, everyone sees it.</blockquote>
          <p className="muted measure">
            A message from a colleague, an agent that is paused, a row changed in <code>psql</code>: this page shows it
            a moment later.
          </p>
          <Example />
        </div>
      </aside>
    </div>
  );
}

function LoginForm(): ReactNode {
  const [failure, setFailure] = useState<LoginFailure | null>(null);
  const [isBusy, setBusy] = useState(false);
  const password = useRef<HTMLInputElement>(null);
  const submit = async (event: FormEvent<HTMLFormElement>): Promise<void> => {
    event.preventDefault();
    if (isBusy) return;
    const form = new FormData(event.currentTarget);
    setBusy(true);
    setFailure(null);
    const failed = await logIn(String(form.get('email')), String(form.get('password')));
    // After a login, this form is gone.
    if (failed === null) return;
    setBusy(false);
    setFailure(failed);
    password.current?.focus();
  };
  return (
    <form onSubmit={(event) => void submit(event)} noValidate>
      <div className="intro">
        <Mark size={40} />
        <div>
          <h1>Log in to TeamHub</h1>
          <p className="muted">See what your agents do while they do it.</p>
        </div>
      </div>
      {failure !== null && (
        <p className="hint bad" role="alert" id="failure">
          <Icon name={FAILURES[failure][0]} />
          {FAILURES[failure][1]}
        </p>
      )}
      <div className="field">
        <label htmlFor="email">Email</label>
        <input
          className="input"
          id="email"
          name="email"
          type="email"
          autoComplete="username"
          defaultValue={EXAMPLE}
          required
        />
      </div>
      <div className="field">
        <label htmlFor="password">Password</label>
        <input
          className="input"
          id="password"
          name="password"
          type="password"
          autoComplete="current-password"
          ref={password}
          aria-invalid={failure === 'refused'}
          aria-describedby={failure === null ? undefined : 'failure'}
          required
        />
      </div>
      <button type="submit" className="btn primary wide" aria-disabled={isBusy}>
        {isBusy && <Icon name="loader-circle" look="spin" />}
        {isBusy ? 'Logging in' : 'Log in'}
      </button>
      <p className="hint">
        This is the example application. Everybody’s password is <code>teamhub</code>.
      </p>
    </form>
  );
}

/** Somebody of the seeded database. */
const EXAMPLE = 'ada@org-01.example';

const AGENTS = [
  ['Edsger', 'Planner', 'Active'],
  ['Grace', 'Role changed now', 'Active'],
  ['Hedy', 'Translator', 'Paused'],
] as const;

/** What it looks like; a picture, so no screen reader reads it as if it were true. */
function Example(): ReactNode {
  return (
    <div className="card example" aria-hidden="true">
      {AGENTS.map(([name, role, status]) => {
        const isChanged = name === 'Grace';
        return (
          <div key={name} className={isChanged ? 'minirow tint' : 'minirow'}>
            <Avatar name={name} />
            <span>
              <b className="strong">{name}</b>
              <br />
              <span className={isChanged ? 'small up' : 'small dim'}>{role}</span>
            </span>
            <span className="row small muted">
              {status === 'Paused' ? <Icon name="pause" look="s dim" /> : <span className="dot acc" />}
              {status}
            </span>
          </div>
        );
      })}
    </div>
  );
}
