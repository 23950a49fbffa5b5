/**
 * Server-sent events: from the bytes of a stream to its events, without I/O.
 *
 * Source: WHATWG HTML, section 9.2.5 (parsing) and 9.2.6 (interpreting an event stream). A chunk that ends in CR ends
 * its line at once, and an LF that opens the next chunk is then skipped: waiting for it would hold the last event back
 * until the next one comes. The twin of `reactive_rpc/protocol/sse.py`.
 */

/** The most characters that the decoder holds of one line, or of one event's data, before it gives up. */
export const MAX_EVENT_LENGTH = 16 * 1024 * 1024;

/** One dispatched event. */
export interface ServerSentEvent {
  /** Its name; `message` if the stream gives none. */
  readonly event: string;
  /** The data lines, joined by LF. */
  readonly data: string;
  /** The last event id at this event, which an earlier event may have set; empty if none was. */
  readonly id: string;
}

const LINE_END = /\r\n|\n|\r/;
const DIGITS = /^\d{1,15}$/;

/**
 * Turns chunks of a byte stream into events, whatever the chunks' borders.
 *
 * One decoder belongs to one connection. An event that the stream does not end with a blank line is dropped.
 */
export class SseDecoder {
  /** The last reconnection time that the stream asked for, in milliseconds; null if it did not. */
  retryMs: number | null = null;
  // A streaming decoder keeps a character that a chunk border cuts, and drops the byte order mark at the start.
  readonly #text = new TextDecoder();
  readonly #maxLength: number;
  #tail = '';
  #skipsLf = false;
  #event = '';
  #data: string[] = [];
  #dataLength = 0;
  #id = '';

  constructor(maxLength: number = MAX_EVENT_LENGTH) {
    this.#maxLength = maxLength;
  }

  /** Return the events that `chunk` completes, in order; throws a RangeError if one is longer than the bound. */
  feed(chunk: Uint8Array): ServerSentEvent[] {
    return this.#split(this.#text.decode(chunk, { stream: true })).flatMap((line) => this.#take(line));
  }

  /** Return the lines that `text` completes, without their ends; keep the rest. */
  #split(text: string): string[] {
    if (text === '') return [];
    const fresh = this.#skipsLf && text.startsWith('\n') ? text.slice(1) : text;
    this.#skipsLf = text.endsWith('\r');
    const [first = '', ...others] = fresh.split(LINE_END);
    const lines = [this.#tail + first, ...others];
    this.#tail = lines.pop() ?? '';
    this.#check(this.#tail.length);
    return lines;
  }

  /** Interpret one line. A comment or an unknown field changes nothing. */
  #take(line: string): ServerSentEvent[] {
    if (line === '') return this.#dispatch();
    this.#check(line.length);
    const colon = line.indexOf(':');
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (name === 'data') this.#addData(value);
    else if (name === 'event') this.#event = value;
    else if (name === 'id' && !value.includes('\0')) this.#id = value;
    else if (name === 'retry' && DIGITS.test(value)) this.retryMs = Number(value);
    return [];
  }

  #addData(value: string): void {
    this.#dataLength += value.length + 1;
    this.#check(this.#dataLength);
    this.#data.push(value);
  }

  /** End the event at a blank line; one without data is none, though its id is kept. */
  #dispatch(): ServerSentEvent[] {
    const event = { event: this.#event || 'message', data: this.#data.join('\n'), id: this.#id };
    const isEvent = this.#data.length > 0;
    this.#event = '';
    this.#data = [];
    this.#dataLength = 0;
    return isEvent ? [event] : [];
  }

  #check(length: number): void {
    if (length > this.#maxLength) throw new RangeError(`an event of the stream is over ${this.#maxLength} characters`);
  }
}
