/** A page whose messages wait for the network: `page` sends them, and notes what each showed, and what was refused. */

import {
  infinite,
  type Message,
  queue,
  type ReactiveError,
  type RejectedMutation,
} from '../../../generated_client/typescript/index.ts';
import { orders, Page } from './page.ts';

const AGENT = 'agent-0001';
const PREFIX = 'waiting-';

interface Rejection {
  readonly body: unknown;
  readonly code: string;
  readonly mayBeMade: boolean;
}

class WaitingPage extends Page {
  /** What was told of as not made. */
  readonly rejections: Rejection[];
  /** How each call of this page has ended, by the text: the id of the message, or the code of the error. */
  readonly ended: Record<string, string> = {};
  /** What the list in pages shows, in each frame, oldest first. */
  readonly lists: (readonly string[])[] = [];
  #rows: readonly Message[] = [];

  constructor() {
    const rejections: Rejection[] = [];
    const offline = queue({
      mutations: {
        'messages.send': (input, on, { key, madeAt }) => {
          const { from_agent_id, to_agent_id = null, body } = input;
          const row: Message = { id: PREFIX + key, from_agent_id, to_agent_id, body, created_at: madeAt };
          on('messages.get_all', { agent_id: from_agent_id }, (page) => ({ ...page, items: [row, ...page.items] }));
        },
      },
      onRejected: (mutation: RejectedMutation, { code }: ReactiveError) => {
        const { body }: { readonly body?: unknown } = mutation.input as object;
        rejections.push({ body, code, mayBeMade: mutation.mayBeMade });
      },
    });
    super(orders(), { offline, fetch: (input, init) => this.#fetch(String(input), init) });
    this.rejections = rejections;
    infinite(this.hub, 'messages.get_all', { agent_id: AGENT }, { limit: 10 }).subscribe(({ rows = [] }) => {
      this.#rows = rows;
      this.lists.push(rows.map(({ body }) => body).toReversed());
    });
  }

  send(body: string, to_agent_id: string | null = null): void {
    this.hub.call('messages.send', { from_agent_id: AGENT, to_agent_id, body }).then(
      ({ id }) => (this.ended[body] = id),
      ({ code }: ReactiveError) => (this.ended[body] = code),
    );
  }

  /** Those that show and wait, oldest first. */
  get waiting(): readonly string[] {
    const waits = this.#rows.filter(({ id }) => id.startsWith(PREFIX));
    return waits.map(({ body }) => body).toReversed();
  }

  /** Whether some text showed twice at once. */
  get isDoubled(): boolean {
    return this.lists.some((bodies) => new Set(bodies).size < bodies.length);
  }

  /** Sends a request; answers get lost on their way while `losing` is in storage. */
  async #fetch(url: string, init?: RequestInit): Promise<Response> {
    const response = await fetch(url, init);
    if (!url.includes('messages.send') || localStorage.getItem('losing') === null) return response;
    await response.text();
    localStorage.setItem('losing', 'lost');
    throw new TypeError('the answer is lost');
  }
}

declare global {
  var page: Page;
}

globalThis.page = new WaitingPage();
