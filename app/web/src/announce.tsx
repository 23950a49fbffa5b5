/** The one voice of the page to a screen reader: own actions at once, others' changes at most once in five seconds. */

import { createContext, type ReactNode, useCallback, useContext, useMemo, useRef, useState } from 'react';

import { Icon } from './icon.tsx';

const QUIET_MS = 5000;
const TOAST_MS = 6000;

export interface Toast {
  readonly title: string;
  readonly text: string;
  readonly action?: { readonly label: string; readonly run: () => void };
}

interface Voice {
  /** Say it at once: it answers what the user has done. */
  readonly say: (text: string) => void;
  /** Say it, unless something was said a moment ago. */
  readonly mention: (text: string) => void;
  readonly toast: (toast: Toast) => void;
}

const VoiceContext = createContext<Voice>({ say: () => {}, mention: () => {}, toast: () => {} });

export function useVoice(): Voice {
  return useContext(VoiceContext);
}

export function VoiceProvider({ children }: { readonly children: ReactNode }): ReactNode {
  const [said, setSaid] = useState('');
  const [toast, setToast] = useState<Toast | null>(null);
  const mentionedAt = useRef(0);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const wait = useCallback((): void => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setToast(null), TOAST_MS);
  }, []);
  const voice = useMemo<Voice>(
    () => ({
      say: setSaid,
      mention: (text) => {
        if (Date.now() - mentionedAt.current < QUIET_MS) return;
        mentionedAt.current = Date.now();
        setSaid(text);
      },
      toast: (next) => {
        setToast(next);
        setSaid(`${next.title}. ${next.text}`);
        wait();
      },
    }),
    [wait],
  );
  return (
    <VoiceContext value={voice}>
      {children}
      <p className="sr" role="status">
        {said}
      </p>
      {toast !== null && (
        <ToastCard toast={toast} stop={() => clearTimeout(timer.current)} goOn={wait} close={() => setToast(null)} />
      )}
    </VoiceContext>
  );
}

interface ToastCardProps {
  readonly toast: Toast;
  readonly stop: () => void;
  readonly goOn: () => void;
  readonly close: () => void;
}

/** It stays while it is looked at. */
function ToastCard({ toast: { title, text, action }, stop, goOn, close }: ToastCardProps): ReactNode {
  const act = (): void => {
    action?.run();
    close();
  };
  return (
    <aside className="toasts" aria-label="Notice" onMouseEnter={stop} onMouseLeave={goOn} onFocus={stop} onBlur={goOn}>
      <div className="toast">
        <Icon name="circle-check" />
        <b>{title}</b>
        <p>{text}</p>
        {action === undefined ? (
          <button type="button" className="btn sm icon ghost" aria-label="Close" onClick={close}>
            <Icon name="x" look="s" />
          </button>
        ) : (
          <button type="button" className="btn sm" onClick={act}>
            {action.label}
          </button>
        )}
      </div>
    </aside>
  );
}
