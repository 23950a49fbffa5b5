// A document for React in Node, to be imported before it: React looks whether there is one. `fetch` stays Node's own, as
// that of a page would ask for CORS.

import { Window } from 'happy-dom';

const window = Object.assign(new Window({ url: 'http://127.0.0.1/' }), { fetch: globalThis.fetch });
Object.assign(globalThis, { window, document: window.document });

/** An element of the document, to render into. */
export const place: HTMLElement = document.createElement('main');
document.body.append(place);

/** Wait until the document says so. */
export async function until(holds: () => boolean, what: string): Promise<void> {
  const givesUpAt = Date.now() + 60_000;
  while (!holds()) {
    if (Date.now() > givesUpAt) throw new Error(`${what}, and there is:\n${place.innerHTML}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Return the element that a selector finds. */
export function found(selector: string): HTMLElement {
  const element = place.querySelector<HTMLElement>(selector);
  if (element === null) throw new Error(`${selector} is not there:\n${place.innerHTML}`);
  return element;
}
