/** All that hears of changes, in a chunk of its own: a page loads it beside its first request. */

import { type BackgroundHost, refreshInBackground } from './background.ts';
import { browserOf } from './browser.ts';
import { isUp } from './later.ts';
import { type NewsSource, type StreamState, Streams } from './streams.ts';
import { type TabOptions, Tabs } from './tabs.ts';
import { Wire, type WireOptions } from './wire.ts';

export interface LiveOptions extends Omit<TabOptions, 'wire'> {
  readonly wire: WireOptions;
  /** Whose page it is, if it knows. */
  readonly identity: string | null;
  /** What is brought up to date once there is time. */
  readonly background: BackgroundHost;
  /** Aborted at the end of the client. */
  readonly signal: AbortSignal;
}

/** Return where news come from: in a page, a stream that its tabs share; elsewhere, one of the client's own. */
export function listen(options: LiveOptions): NewsSource {
  const { identity, background, signal } = options;
  let endBackground: (() => void) | null = null;
  const onState = (state: StreamState): void => {
    options.onState?.(state);
    if (isUp(state) && !signal.aborted) endBackground ??= refreshInBackground(background);
  };
  signal.addEventListener('abort', () => endBackground?.());
  const browser = browserOf();
  const about = { ...options, wire: new Wire(options.wire), onState };
  return browser === null ? new Streams(about) : new Tabs(about, browser, identity);
}
