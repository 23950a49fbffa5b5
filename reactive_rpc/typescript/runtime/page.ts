/** What happens to a page: the network comes and goes, it is hidden, frozen, left and restored, the laptop sleeps. */

/** Who must know. */
export interface PageListener {
  /** Try now what waits: the page is seen again. */
  nudge(): void;
  /** Distrust connections: the page slept. */
  distrust(): void;
  setOnline(isOnline: boolean): void;
  tick(): void;
  /** The page is frozen, or left; it may come back. */
  suspend(): void;
  resume(): void;
}

const TICK_MS = 1500;
/** After how long in the background, or of sleep, connections are not trusted. */
const DISTRUST_MS = 6500;

/** Tell whether this is a page: elsewhere nothing of it happens. */
export function isPage(): boolean {
  return typeof document !== 'undefined' && typeof addEventListener === 'function';
}

export function isHidden(): boolean {
  return document.visibilityState === 'hidden';
}

/** Tell `listener` what happens to the page, until the function that is returned is called. */
export function followPage(listener: PageListener): () => void {
  const end = new AbortController();
  const on = (target: EventTarget, type: string, act: (event: Event) => void): void =>
    target.addEventListener(type, act, { signal: end.signal });
  const suspend = (): void => listener.suspend();
  const resume = (): void => listener.resume();
  let seenAt = Date.now();
  /** Tell whether the page was hidden, or slept, for long: sockets may be gone without a word. */
  const hasSlept = (): boolean => {
    const sleptMs = Date.now() - seenAt;
    seenAt = Date.now();
    return sleptMs > DISTRUST_MS;
  };
  on(globalThis, 'online', () => listener.setOnline(true));
  on(globalThis, 'offline', () => listener.setOnline(false));
  on(globalThis, 'pagehide', suspend);
  on(globalThis, 'pageshow', (event) => {
    if ((event as PageTransitionEvent).persisted) resume();
  });
  on(document, 'freeze', suspend);
  on(document, 'resume', resume);
  on(document, 'visibilitychange', () => {
    if (isHidden()) return;
    if (hasSlept()) listener.distrust();
    else listener.nudge();
  });
  const ticking = setInterval(() => {
    // A hidden page's timers are late without any sleep.
    if (!isHidden() && hasSlept()) listener.distrust();
    listener.tick();
  }, TICK_MS);
  if (navigator.onLine === false) listener.setOnline(false);
  return () => {
    end.abort();
    clearInterval(ticking);
  };
}
