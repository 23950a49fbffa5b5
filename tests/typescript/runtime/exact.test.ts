import { isDeepStrictEqual } from 'node:util';

import { type DehydratedState, hydrate, QueryClient } from '@tanstack/query-core';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { either, plain, whole } from '../../../reactive_rpc/typescript/runtime/choices.ts';
import { type Codec, list, map, obj, opt, record, set } from '../../../reactive_rpc/typescript/runtime/codec.ts';
import { Digits, integer } from '../../../reactive_rpc/typescript/runtime/digits.ts';
import { bigint, exact, formatExact, parseExact } from '../../../reactive_rpc/typescript/runtime/exact.ts';
import type { Reactive, ReactiveOptions } from '../../../reactive_rpc/typescript/runtime/reactive.ts';
import { MemoryBrowser, type Tab, type TabSetting, until } from './browser.ts';
import { type Fault, withFaultOfRuntime } from './mutants.ts';

const LONG = 2n ** 53n + 1n;
const ROUNDED = Number(LONG);

interface Case {
  readonly output: Codec<unknown>;
  /** What the server answers. */
  readonly text: string;
  readonly value: unknown;
}

const CASES: Readonly<Record<string, Case>> = {
  'a bigint': { output: exact(bigint), text: `-${LONG}`, value: -LONG },
  'a bigint in a field, beside an int': {
    output: exact(obj({ n: bigint })),
    text: `{"n": ${LONG}, "m": ${LONG}, "x": 0.1, "small": 7}`,
    value: { n: LONG, m: ROUNDED, x: 0.1, small: 7 },
  },
  'a union of bigint and text': {
    output: exact(list(either<bigint | string>(whole(true), plain('string')))),
    text: `[${LONG}, "${LONG}", 7, "7"]`,
    value: [LONG, `${LONG}`, 7n, '7'],
  },
  'bigints in lists, sets, maps and objects of each other': {
    output: exact(record(list(obj({ all: set(bigint), by: map(bigint, opt(bigint)) })))),
    text: `{"a": [{"all": [${LONG}, 1], "by": {"${LONG}": ${2n ** 70n}, "1": null}}]}`,
    value: {
      a: [
        {
          all: new Set([LONG, 1n]),
          by: new Map([
            [LONG, 2n ** 70n],
            [1n, null],
          ]),
        },
      ],
    },
  },
  'an int where no bigint is': { output: obj({}), text: `{"m": ${LONG}}`, value: { m: ROUNDED } },
};

const PATH = 'a.b';
/** What the query answers at first where the case comes later. */
const BEFORE: Readonly<Record<string, string>> = { 'a bigint': '1', 'a union of bigint and text': '[]' };

/** Show a case by some way, and return the data. */
type Way = (browser: MemoryBrowser, one: Case, name: string) => Promise<unknown>;

function opened(browser: MemoryBrowser, { output }: Case, options: TabSetting = {}): Tab {
  const tab = browser.open({ codecs: { [PATH]: { output } }, ...options });
  tab.show(PATH);
  return tab;
}

/** Return what a tab shows once it is the truth. */
async function shown(browser: MemoryBrowser, tab: Tab): Promise<unknown> {
  const count = browser.server.counts.get(PATH) ?? 0;
  const etag = `"${PATH} ${count}"`;
  await until(() => tab.engine.entry({ path: PATH, input: undefined }).snapshot.base.etag === etag);
  return tab.now(PATH)?.data;
}

/** Open a tab that shows something else, and push the case to it. */
async function pushed(browser: MemoryBrowser, one: Case, name: string, options: TabSetting = {}): Promise<Tab[]> {
  browser.server.texts.set(PATH, BEFORE[name] ?? '{}');
  const tabs = [opened(browser, one, options)];
  await until(() => tabs[0]?.now(PATH)?.isStale === false);
  tabs.push(opened(browser, one, options));
  await until(() => tabs[1]?.now(PATH)?.isStale === false);
  const asked = browser.server.asked.filter((path) => path === PATH).length;
  browser.server.push(PATH, one.text);
  for (const tab of tabs) await shown(browser, tab);
  expect(browser.server.asked.filter((path) => path === PATH)).toHaveLength(asked);
  return tabs;
}

const WAYS: Readonly<Record<string, Way>> = {
  'is called': async (browser, one) => {
    browser.server.texts.set(PATH, one.text);
    return shown(browser, opened(browser, one));
  },
  'is pushed by a stream': async (browser, one, name) => {
    const [leader] = await pushed(browser, one, name);
    return leader?.now(PATH)?.data;
  },
  'is pushed by the stream of another tab': async (browser, one, name) => {
    const [, follower] = await pushed(browser, one, name);
    return follower?.now(PATH)?.data;
  },
  'comes by a long poll': async (browser, one, name) => {
    const [leader] = await pushed(browser, one, name, { transport: 'poll' });
    return leader?.now(PATH)?.data;
  },
  'was fetched by another tab': async (browser, one, name) => {
    browser.server.texts.set(PATH, BEFORE[name] ?? '{}');
    const tabs = [opened(browser, one), opened(browser, one, { isHidden: true })];
    await until(() => tabs.every((tab) => tab.now(PATH)?.isStale === false));
    browser.server.texts.set(PATH, one.text);
    const asked = browser.server.asked.length;
    browser.server.write(PATH);
    const [, hidden] = tabs;
    const data = hidden && (await shown(browser, hidden));
    expect(browser.server.asked.slice(asked).filter((path) => path === PATH)).toHaveLength(1);
    return data;
  },
  'was stored by the last visit': async (browser, one) => {
    browser.server.texts.set(PATH, one.text);
    const options = { isStored: true, identity: 'ada' };
    const before = opened(browser, one, options);
    await shown(browser, before);
    before.close();
    browser.server.goDown();
    return opened(browser, one, options).now(PATH)?.data;
  },
  'is called in a batch': async (browser, one) => {
    const page = await loaded(browser, one);
    const { data } = page.query(PATH).state;
    page.close();
    return data;
  },
  'was rendered by a server': async (browser, one) => {
    const server = await loaded(browser, one);
    const state = JSON.stringify(browser.runtime.dehydrateReactive(server));
    server.close();
    const client = new QueryClient();
    hydrate(client, JSON.parse(state) as DehydratedState);
    const page = pageOf(browser, one, { client, fetch: () => Promise.reject(new TypeError('gone')) });
    const { data } = page.query(PATH).state;
    page.close();
    return data;
  },
};

interface Api {
  readonly [PATH]: { readonly kind: 'query'; readonly input: undefined; readonly output: unknown };
}

function pageOf(browser: MemoryBrowser, { output }: Case, options: Partial<ReactiveOptions>): Reactive<Api> {
  const codecs = { [PATH]: { output } };
  return browser.runtime.createReactive<Api>({ url: '/', transport: 'off', storage: 'none', codecs, ...options });
}

/** Return a page that has loaded a case, in a batch of one. */
async function loaded(browser: MemoryBrowser, one: Case): Promise<Reactive<Api>> {
  browser.server.texts.set(PATH, one.text);
  const tab = browser.open();
  const fetch: typeof globalThis.fetch = async (input, init) => {
    const answer = await browser.server.answer(tab, String(input).replace(/\?.*/, ''), { ...init });
    return new Response(`[${await answer.text()}]`);
  };
  const page = pageOf(browser, one, { fetch });
  const loading = page.query(PATH).load();
  await vi.advanceTimersByTimeAsync(0);
  await loading;
  return page;
}

let browser: MemoryBrowser;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date'] });
  browser = new MemoryBrowser();
});

afterEach(() => {
  browser.close();
  vi.useRealTimers();
});

describe.each(Object.entries(CASES))('%s', (name, one) => {
  test.each(Object.entries(WAYS))('%s', async (_, way) => {
    expect(await way(browser, one, name)).toEqual(one.value);
  });
});

const FAULTS: readonly (Fault & { readonly way: string })[] = [
  {
    name: 'no text is asked for',
    file: 'gate.ts',
    line: '...(exact.length > 0 && {',
    broken: '...(exact.length > 999 && {',
    way: 'is called in a batch',
  },
  {
    name: 'an event is parsed plainly',
    file: 'channels.ts',
    line: 'parseJson(data, parseExact)',
    broken: 'parseJson(data)',
    way: 'is pushed by a stream',
  },
  {
    name: 'the answer to a poll is parsed plainly',
    file: 'channels.ts',
    line: 'parseJson(text, parseExact)',
    broken: 'parseJson(text)',
    way: 'comes by a long poll',
  },
  {
    name: 'that it is text is not told to other tabs',
    file: 'engine.ts',
    line: '...rawIn(entry, answer), etag',
    broken: '...rawIn(entry, answer), isText: false, etag',
    way: 'was fetched by another tab',
  },
  {
    name: 'that it is text is not stored',
    file: 'store.ts',
    line: '...(isText && { text: true })',
    broken: '...(false && { text: true })',
    way: 'was stored by the last visit',
  },
  {
    name: 'digits are stored as JSON spells them',
    file: 'entry.ts',
    line: 'return codec.format ?',
    broken: 'return !codec.decode && codec.format ?',
    way: 'was stored by the last visit',
  },
  {
    name: 'that it is text is not rendered',
    file: 'rendering.ts',
    line: ', text: true }',
    broken: ' }',
    way: 'was rendered by a server',
  },
];

test.each(FAULTS)('it is found that $name', async (fault) => {
  await withFaultOfRuntime(fault, async (runtime) => {
    const way = WAYS[fault.way] as Way;
    const rights = Object.entries(CASES).map(async ([name, one]) => {
      const broken = new MemoryBrowser(runtime);
      const found = await way(broken, one, name).catch(String);
      broken.close();
      return isDeepStrictEqual(found, one.value);
    });
    expect(await Promise.all(rights)).toContain(false);
  });
});

describe('text of JSON', () => {
  const floats = fc
    .double({ noNaN: true, noDefaultInfinity: true })
    .filter((x) => Number.isSafeInteger(x) || !Number.isInteger(x));
  const numbers = fc.oneof(fc.bigInt(), fc.bigInt({ min: -(2n ** 53n), max: 2n ** 53n }));
  const { json } = fc.letrec((tie) => ({
    leaf: fc.oneof(numbers, fc.string({ unit: 'binary' }), floats, fc.constant(null)),
    json: fc.oneof({ maxDepth: 4 }, tie('leaf'), fc.array(tie('json')), fc.dictionary(fc.string(), tie('json'))),
  }));

  /** Put digits in the place of each bigint. */
  function withDigits(value: unknown): unknown {
    if (typeof value === 'bigint') return integer(value);
    if (Array.isArray(value)) return value.map(withDigits);
    if (typeof value !== 'object' || value === null) return Object.is(value, -0) ? 0 : value;
    return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, withDigits(one)]));
  }

  test('is read as what was written, with all digits', () => {
    fc.assert(
      fc.property(json, (value) => {
        const digits = withDigits(value);
        expect(parseExact(formatExact(digits))).toEqual(digits);
      }),
    );
  });

  test('has the digits that the server writes', () => {
    fc.assert(
      fc.property(numbers, fc.string({ unit: 'binary' }), (n, label) => {
        const text = `{"n": ${n}, "all": [${n},"${n}"], ${JSON.stringify(label)}: ${JSON.stringify(label)}}`;
        const read = parseExact(text);
        expect(read).toEqual({ n: integer(n), all: [integer(n), `${n}`], [label]: label });
        expect(formatExact(read)).toBe(
          JSON.stringify({ n: 0, all: [0, `${n}`], [label]: label })
            .replace(':0', `:${n}`)
            .replace('[0', `[${n}`),
        );
      }),
    );
  });

  test.each(['1e300', '12345678901234567890.5', '0.12345678901234567', '-1E+5', '"12345678901234567890"', '{'])(
    'is read as ever without such numbers: %s',
    (text) => {
      const read = (parse: (text: string) => unknown): unknown => {
        try {
          return parse(text);
        } catch (error) {
          return (error as Error).name;
        }
      };
      expect(read(parseExact)).toEqual(read(JSON.parse));
    },
  );

  test('is read though its strings are long', () => {
    const long = 'a\\"'.repeat(1_000_000);
    expect(parseExact(`["${long}", ${LONG}]`)).toEqual([JSON.parse(`"${long}"`), new Digits(`${LONG}`)]);
  });
});
