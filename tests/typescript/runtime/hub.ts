/** An HTTP server that answers the requests of streams as a test tells it to. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';

export interface StreamBody {
  readonly queries: readonly { readonly path: string; readonly input: unknown; readonly etag?: string }[];
  readonly cursor: string | null;
}

/** A stream that a client has asked for. */
export class HeldStream {
  readonly body: StreamBody;
  isClosed = false;
  readonly #response: ServerResponse;

  constructor(body: StreamBody, response: ServerResponse) {
    this.body = body;
    this.#response = response;
    response.on('close', () => {
      this.isClosed = true;
    });
  }

  /** Say `connected`, with a key for each query: `k0`, `k1`. */
  connect(about: object = {}): void {
    const queries = this.body.queries.map((_, index) => `k${index}`);
    this.say('connected', { stream: 's', cursor: 'e:1', queries, stale: [], errors: [], ...about });
  }

  say(event: string, data: object): void {
    if (!this.#response.headersSent) this.#response.writeHead(200, { 'content-type': 'text/event-stream' });
    this.#response.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  }

  /** Say that the server is there: a comment. */
  beat(): void {
    this.#response.write(':\n\n');
  }

  /** Ask to be left alone for so long between streams. */
  ask(retryMs: number): void {
    this.#response.write(`retry: ${retryMs}\n\n`);
  }

  end(): void {
    this.#response.end();
  }

  refuse(status: number, headers: Readonly<Record<string, string>> = {}): void {
    this.#response.writeHead(status, headers).end();
  }
}

export class Hub {
  readonly streams: HeldStream[] = [];
  readonly polls: StreamBody[] = [];
  readonly acks: { readonly stream: string; readonly cursor: string }[] = [];
  /** Called with each stream that is asked for. */
  onStream: (stream: HeldStream) => void = (stream) => stream.connect();
  /** What every query answers. */
  result: unknown = null;
  readonly #server: Server = createServer((request, response) => void this.#answer(request, response));

  static async open(): Promise<Hub> {
    const hub = new Hub();
    await new Promise<void>((resolve) => hub.#server.listen(0, '127.0.0.1', resolve));
    return hub;
  }

  get url(): string {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? `http://127.0.0.1:${address.port}` : '';
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = JSON.parse(Buffer.concat(chunks).toString());
    if (request.url === '/rpc/events/ack') {
      this.acks.push(body);
      response.writeHead(204).end();
    } else if (request.url === '/rpc/events/poll') this.#poll(body, response);
    else if (request.url !== '/rpc/events') this.#result(request, response);
    else {
      const stream = new HeldStream(body, response);
      this.streams.push(stream);
      this.onStream(stream);
    }
  }

  /** Answer each call of a batch: `/trpc/agents.get,memory.get?batch=1`. */
  #result({ url = '' }: IncomingMessage, response: ServerResponse): void {
    const data = { d: this.result, etag: '"A"', version: 'e:1' };
    const answers = url.split(',').map(() => ({ result: { data } }));
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answers));
  }

  /** Answer the first poll of a chain; the next ones wait. */
  #poll(body: StreamBody & { readonly wait: number }, response: ServerResponse): void {
    this.polls.push(body);
    if (body.wait > 0) return;
    const queries = body.queries.map((_, index) => `k${index}`);
    const data = { stream: 's', cursor: 'e:1', queries, stale: [], errors: [] };
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ cursor: 'e:1', events: [{ event: 'connected', id: 'e:1', data }] }));
  }
}
