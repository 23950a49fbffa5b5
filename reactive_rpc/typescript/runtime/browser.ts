/** What tabs use of a browser. */

import type { TabHost } from './group.ts';
import { isHidden, isPage } from './page.ts';
import type { Browser } from './tabs.ts';
import { nextTask } from './tasks.ts';

/** Return what this browser has for tabs; null if this is no page. */
export function browserOf(): Browser | null {
  if (!isPage()) return null;
  // Locks are there in secure contexts only, and neither in some old browsers.
  const { locks } = navigator as { readonly locks?: LockManager };
  const hasChannels = typeof BroadcastChannel === 'function';
  const openChannel: TabHost['openChannel'] = (name, onMessage) => {
    const channel = new BroadcastChannel(name);
    channel.onmessage = ({ data }) => onMessage(data);
    return channel;
  };
  return { isHidden, nextTask, word, ...(locks && { locks }), ...(hasChannels && { openChannel }) };
}

function word(name: string, said?: string): string | null {
  try {
    if (said !== undefined) localStorage.setItem(name, said);
    return localStorage.getItem(name);
  } catch {
    return null; // storage is forbidden, or full
  }
}
