import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { type ServerSentEvent, SseDecoder } from '../../../reactive_rpc/typescript/runtime/sse.ts';

const encoder = new TextEncoder();

function decoded(text: string): ServerSentEvent[] {
  return new SseDecoder().feed(encoder.encode(text));
}

describe('what the standard says', () => {
  test.each<[string, string, ServerSentEvent[]]>([
    ['an event without a name is a message', 'data: a\n\n', [{ event: 'message', data: 'a', id: '' }]],
    ['lines of data are joined by LF', 'data: a\ndata\ndata:  b\n\n', [{ event: 'message', data: 'a\n\n b', id: '' }]],
    ['a comment is no event', ': heartbeat\n\n', []],
    ['no data is no event', 'event: gap\n\n', []],
    ['a name ends with its event', 'event: gap\n\ndata: a\n\n', [{ event: 'message', data: 'a', id: '' }]],
    ['an id stays, also that of no event', 'id: 7\n\ndata: a\n\n', [{ event: 'message', data: 'a', id: '7' }]],
    ['an id with NUL is ignored', 'id: 7\nid: 8\0\ndata: a\n\n', [{ event: 'message', data: 'a', id: '7' }]],
    ['a byte order mark is dropped', '\ufeffdata: a\n\n', [{ event: 'message', data: 'a', id: '' }]],
    ['only the first one is', '\ufeff\ufeffdata: a\n\ndata: b\n\n', [{ event: 'message', data: 'b', id: '' }]],
    ['an event that is not ended is dropped', 'data: a\n\ndata: b\n', [{ event: 'message', data: 'a', id: '' }]],
    ['every line end ends a line', 'data: a\r\rdata: b\r\n\r\ndata: c\n\n', abc()],
  ])('%s', (_, text, events) => {
    expect(decoded(text)).toEqual(events);
  });

  function abc(): ServerSentEvent[] {
    return ['a', 'b', 'c'].map((data) => ({ event: 'message', data, id: '' }));
  }

  test.each([
    ['retry: 250\n', 250],
    ['retry: 25x\n', null],
    ['retry:\n', null],
    ['retry: -1\n', null],
  ])('%j asks for %s ms', (text, wanted) => {
    const decoder = new SseDecoder();
    decoder.feed(encoder.encode(text));
    expect(decoder.retryMs).toBe(wanted);
  });
});

test('a chunk that ends in CR holds nothing back', () => {
  const decoder = new SseDecoder();
  expect(decoder.feed(encoder.encode('data: a\r\n\r'))).toHaveLength(1);
  expect(decoder.feed(encoder.encode('\ndata: b\n\n'))).toEqual([{ event: 'message', data: 'b', id: '' }]);
});

test.each([
  ['a line', 'data: 123456789'],
  ['the data of one event', 'data: 12345\ndata: 12345\n'],
  ['a name', 'event: 123456789\n'],
])('%s over the bound ends the stream', (_, text) => {
  expect(() => new SseDecoder(9).feed(encoder.encode(text))).toThrow(RangeError);
});

const word = fc.string({ unit: fc.constantFrom('a', 'ä', '😀', ':', ' ', '\ufeff'), maxLength: 4 });
const line = fc.oneof(
  fc.constantFrom('', '', ': x', 'retry: 5', 'event', 'id: 7'),
  fc
    .tuple(fc.constantFrom('data', 'event', 'id', 'other'), fc.constantFrom(':', ': ', ''), word)
    .map((parts) => parts.join('')),
);
const streams = fc
  .array(fc.tuple(line, fc.constantFrom('\n', '\r', '\r\n')), { maxLength: 20 })
  .map((lines) => encoder.encode(lines.flat().join('')));
const cuts = fc.array(fc.nat(200), { maxLength: 8 });

function chunksOf(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const sorted = [0, ...places.map((place) => place % (bytes.length + 1)), bytes.length].toSorted((a, b) => a - b);
  return sorted.slice(1).map((end, index) => bytes.subarray(sorted[index] ?? 0, end));
}

test('whatever the borders of the chunks, in characters and in line ends too, the events are the same', () => {
  fc.assert(
    fc.property(streams, cuts, (bytes, places) => {
      const [whole, cut] = [new SseDecoder(), new SseDecoder()];
      const events = chunksOf(bytes, places).flatMap((chunk) => cut.feed(chunk));
      expect(events).toEqual(whole.feed(bytes));
      expect(cut.retryMs).toBe(whole.retryMs);
    }),
    { numRuns: 3000 },
  );
});

test('the events are those of a second reading of the standard', () => {
  fc.assert(
    fc.property(streams, (bytes) => {
      expect(new SseDecoder().feed(bytes)).toEqual(readSlowly(new TextDecoder().decode(bytes)));
    }),
    { numRuns: 3000 },
  );
});

/** The standard's own steps, on a whole stream. */
function readSlowly(text: string): ServerSentEvent[] {
  const events: ServerSentEvent[] = [];
  let [data, event, id]: [string[], string, string] = [[], '', ''];
  for (const one of text.replaceAll('\r\n', '\n').replaceAll('\r', '\n').split('\n').slice(0, -1)) {
    if (one === '') {
      if (data.length > 0) events.push({ event: event || 'message', data: data.join('\n'), id });
      [data, event] = [[], ''];
    }
    const [, name, , value = ''] = /^([^:]*)(: ?(.*))?$/su.exec(one) ?? [];
    if (name === 'data') data.push(value);
    if (name === 'event') event = value;
    if (name === 'id') id = value;
  }
  return events;
}
