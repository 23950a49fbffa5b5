import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { MemoryBrowser, settle, type Tab, type TabSetting, until } from './browser.ts';

/** More than a leader may take to answer. */
const OVERDUE_MS = 2000;

let browser: MemoryBrowser;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date'] });
  browser = new MemoryBrowser();
});

afterEach(() => {
  browser.close();
  vi.useRealTimers();
});

/** Open tabs that show a query, one after another. */
async function tabsOf(count: number, path = 'a.b'): Promise<Tab[]> {
  const tabs: Tab[] = [];
  for (let index = 0; index < count; index++) {
    const tab = browser.open();
    tab.show(path);
    await until(() => tab.isRight(path));
    tabs.push(tab);
  }
  return tabs;
}

function at<T>(list: readonly T[], index: number): T {
  const found = list[index];
  if (found === undefined) throw new Error(`there is nothing at ${index}`);
  return found;
}

async function allRight(tabs: readonly Tab[], path = 'a.b'): Promise<void> {
  await until(() => tabs.every((tab) => tab.isRight(path)));
}

async function pass(milliseconds: number): Promise<void> {
  vi.advanceTimersByTime(milliseconds);
  await settle();
}

describe('eight tabs', () => {
  test('have one stream, and all follow what is written', async () => {
    const tabs = await tabsOf(8);
    await settle();
    expect(browser.server.streams.size).toBe(1);
    expect(browser.server.asked.filter((path) => path === 'events')).toHaveLength(1);
    browser.server.write('a.b');
    await allRight(tabs);
    expect(tabs.map((tab) => tab.now('a.b')?.data?.count)).toEqual(Array(8).fill(1));
  });

  test('the leader follows what it shows later, and another tab shows already', async () => {
    const [leader, other] = (await tabsOf(2)) as [Tab, Tab];
    other.show('c.d');
    await until(() => other.isRight('c.d'));
    leader.show('c.d');
    await until(() => leader.isRight('c.d'));
  });

  test('show what only one of them wants by the stream of all', async () => {
    const tabs = await tabsOf(3);
    at(tabs, 2).show('c.d');
    await until(() => at(tabs, 2).isRight('c.d'));
    await settle();
    expect(browser.server.streams.size).toBe(1);
    browser.server.write('c.d');
    await until(() => at(tabs, 2).now('c.d')?.data?.count === 1);
    at(tabs, 2).close();
    await until(() => [...browser.server.streams].every(({ paths }) => !paths.includes('c.d')));
  });
});

describe('another tab takes over', () => {
  const goings: readonly (readonly [string, (leader: Tab) => void])[] = [
    ['is closed', (leader) => leader.close()],
    ['crashes', (leader) => leader.crash()],
    ['hears that it is frozen', (leader) => leader.engine.suspend()],
  ];

  test.each(goings)('at once, if the leader %s', async (_, go) => {
    const [leader, ...others] = await tabsOf(4);
    go(leader as Tab);
    browser.server.write('a.b');
    await allRight(others);
    await settle();
    expect(browser.server.streams.size).toBe(1);
    expect((leader as Tab).streams).toBe(0);
  });

  test.each(['isFrozen', 'isHung'] as const)('within a ping, if the leader %s and has not said so', async (stands) => {
    const [leader, ...others] = (await tabsOf(4)) as [Tab, ...Tab[]];
    leader[stands] = true;
    browser.server.write('a.b');
    await settle();
    expect(others.every((tab) => tab.now('a.b')?.data?.count === 0)).toBe(true);
    await browser.tick();
    await pass(OVERDUE_MS);
    await allRight(others);

    leader.wake();
    await allRight([leader, ...others]);
    await settle();
    expect(browser.server.streams.size).toBe(1);
    expect(leader.streams).toBe(0);
    // It leads no more, and follows: what is written next it shows.
    browser.server.write('a.b');
    await allRight([leader, ...others]);
  });

  test('and hidden tabs do not ask whether the leader is there', async () => {
    const [leader, ...others] = (await tabsOf(3)) as [Tab, ...Tab[]];
    for (const tab of others) tab.isHidden = true;
    leader.isHung = true;
    await browser.tick();
    await pass(OVERDUE_MS);
    expect(leader.streams).toBe(1);
    expect(browser.server.streams.size).toBe(1);
    at(others, 0).isHidden = false;
    at(others, 0).engine.nudge();
    await pass(OVERDUE_MS);
    expect(at(others, 0).streams).toBe(1);
  });

  test('but not from a leader that answers', async () => {
    const tabs = await tabsOf(3);
    for (let round = 0; round < 5; round++) {
      await browser.tick();
      await pass(OVERDUE_MS);
    }
    expect(at(tabs, 0).streams).toBe(1);
    expect(browser.server.asked.filter((path) => path === 'events')).toHaveLength(1);
  });

  test('without those that are gone without a word', async () => {
    const [leader, other] = (await tabsOf(2)) as [Tab, Tab];
    const gone = browser.open();
    gone.show('c.d');
    await until(() => gone.isRight('c.d'));
    gone.crash();
    leader.crash();
    await allRight([other]);
    await settle();
    expect([...browser.server.streams].map(({ paths }) => paths)).toEqual([['a.b']]);
  });

  test('of what the others want, though it has joined last', async () => {
    const [leader, other] = (await tabsOf(2)) as [Tab, Tab];
    other.show('c.d');
    await until(() => other.isRight('c.d'));
    const last = browser.open();
    last.show('a.b');
    await until(() => last.isRight('a.b'));
    other.isFrozen = leader.isFrozen = true;
    leader.crash();
    other.wake();
    await until(() => other.isRight('c.d') && other.isRight('a.b') && last.isRight('a.b'));
    browser.server.write('c.d');
    await until(() => other.now('c.d')?.data?.count === 1);
    expect(browser.server.streams.size).toBe(1);
  });
});

describe('a page that was away', () => {
  test('shows what it had, stale, and is right again when it is back', async () => {
    const [leader, other] = (await tabsOf(2)) as [Tab, Tab];
    other.engine.suspend();
    expect(other.now('a.b')).toMatchObject({ isStale: true, data: { count: 0 } });
    browser.server.write('a.b');
    await allRight([leader]);
    expect(other.now('a.b')).toMatchObject({ isStale: true, data: { count: 0 } });
    other.engine.resume();
    await allRight([leader, other]);
    expect(browser.server.streams.size).toBe(1);
  });

  test.each([undefined, 'ada'])(
    'shows nothing of a caller who has logged out meanwhile; named by the page: %s',
    async (identity) => {
      const signedOut: string[] = [];
      const open = (name: string, caller: string): Tab =>
        browser.open({ caller, ...(identity && { identity: caller }), onSignedOut: () => signedOut.push(name) });
      const [one, frozen, eve] = [open('one', 'ada'), open('frozen', 'ada'), open('eve', 'eve')];
      for (const tab of [one, frozen, eve]) tab.show('a.b');
      await allRight([one, frozen, eve]);
      frozen.engine.suspend();
      eve.engine.suspend();
      one.engine.reidentify('forget');
      await settle();
      expect(frozen.now('a.b')?.data).toBeDefined();
      browser.server.refusal = 401;
      frozen.engine.resume();
      eve.engine.resume();
      // At once: the first frame that the page paints again is without it.
      expect(frozen.now('a.b')?.data).toBeUndefined();
      expect(eve.now('a.b')?.data).toBeDefined();
      await settle();
      expect(signedOut).toEqual(['frozen']);
    },
  );

  test('and goes on as before if they have logged out before it was away', async () => {
    const [one, other] = (await tabsOf(2)) as [Tab, Tab];
    one.engine.reidentify('forget');
    await until(() => other.isRight('a.b'));
    other.engine.suspend();
    other.engine.resume();
    expect(other.now('a.b')?.data).toBeDefined();
    await allRight([other]);
  });

  test('asks for nothing if nothing has changed', async () => {
    const [, other] = (await tabsOf(2)) as [Tab, Tab];
    other.engine.suspend();
    await settle();
    const before = browser.server.asked.length;
    other.engine.resume();
    await allRight([other]);
    await settle();
    expect(browser.server.asked.slice(before)).toEqual([]);
  });

  test('does not trust its stream after a sleep, and what cannot be had anew is down', async () => {
    const tabs = await tabsOf(2);
    const [leader] = tabs as [Tab, Tab];
    at(tabs, 1).engine.distrust();
    await until(() => browser.server.asked.filter((path) => path === 'events').length === 2);
    await settle();
    expect(leader.streams).toBe(1);
    browser.server.refusal = 0;
    leader.engine.setOnline(false);
    await until(() => tabs.every((tab) => tab.now('a.b')?.isStale === true));
    expect(leader.engine.status).toMatchObject({ stream: 'reconnecting', isOnline: false });
    browser.server.refusal = null;
    leader.engine.setOnline(true);
    await allRight(tabs);
  });
});

describe('a server that was gone', () => {
  test.each(['events', 'c.d'])('is asked at once for all that waits, when %s is answered', async (first) => {
    const [leader, other] = (await tabsOf(2)) as [Tab, Tab];
    browser.server.goDown();
    other.show('c.d');
    // Each has failed so often that it waits for long.
    for (let seconds = 0; seconds < 120; seconds++) await pass(1000);
    browser.server.onAsked = (path) => {
      if (path === first) browser.server.refusal = null;
    };
    while (browser.server.refusal !== null) await pass(100);
    // From here on no time passes.
    await until(() => leader.isRight('a.b') && other.isRight('a.b') && other.isRight('c.d'));
  });
});

describe('the network goes', () => {
  test('and no stream counts as up, though its sockets stay open', async () => {
    const tabs = await tabsOf(2);
    const leader = at(tabs, 0);
    leader.engine.setOnline(false);
    expect(leader.now('a.b')).toMatchObject({ isStale: true, data: { count: 0 } });
    expect(leader.engine.status.stream).toBe('reconnecting');
    await until(() => tabs.every((tab) => tab.now('a.b')?.isStale === true));
    leader.engine.setOnline(true);
    await allRight(tabs);
  });
});

describe('what one tab has fetched', () => {
  test('hidden tabs take, and do not fetch', async () => {
    const tabs = await tabsOf(4);
    for (const tab of tabs.slice(1)) tab.isHidden = true;
    await settle();
    const before = browser.server.asked.length;
    browser.server.write('a.b');
    await allRight(tabs);
    await settle();
    expect(browser.server.asked.slice(before).filter((path) => path === 'a.b')).toHaveLength(1);
  });

  test('they fetch themselves if nobody does', async () => {
    const tabs = await tabsOf(3);
    for (const tab of tabs) tab.isHidden = true;
    browser.server.write('a.b');
    await settle();
    expect(tabs.some((tab) => tab.isRight('a.b'))).toBe(false);
    await pass(1000);
    await allRight(tabs);
  });

  test('a new tab is told of without a fetch, if it has the same', async () => {
    const first = browser.open({ isStored: true, identity: 'ada' });
    first.show('a.b');
    await until(() => first.isRight('a.b'));
    const second = browser.open({ isStored: true, identity: 'ada' });
    const before = browser.server.asked.length;
    second.show('a.b');
    await until(() => second.isRight('a.b'));
    expect(browser.server.asked.slice(before)).toEqual([]);
  });
});

describe('whose tabs they are', () => {
  test('tabs of two callers share nothing', async () => {
    const ada = browser.open();
    const eve = browser.open({ caller: 'eve' });
    for (const tab of [ada, eve]) tab.show('a.b');
    await allRight([ada, eve]);
    expect([ada.streams, eve.streams]).toEqual([1, 1]);
  });

  test('a logout in one tab empties all of the same caller, and what they keep', async () => {
    const signedOut: string[] = [];
    const open = (name: string, caller = 'ada'): Tab =>
      browser.open({ caller, isStored: caller === 'ada', identity: caller, onSignedOut: () => signedOut.push(name) });
    const tabs = [open('one'), open('two'), open('eve', 'eve')] as const;
    for (const tab of tabs) tab.show('a.b');
    await allRight(tabs);
    const [one, two, eve] = tabs;
    browser.server.refusal = 401;
    one.engine.reidentify('forget');
    expect(one.now('a.b')?.data).toBeUndefined();
    await until(() => two.now('a.b')?.data === undefined);
    expect(browser.storage.length).toBe(0);
    expect(signedOut).toEqual(['two']);
    expect(eve.now('a.b')?.data).toBeDefined();
    await settle();
    expect(one.streams + two.streams).toBe(0);
  });

  test('somebody else by the same cookie: every tab finds out, and shows nothing of the former', async () => {
    const signedOut: number[] = [];
    const tabs = [0, 1, 2].map((index) => browser.open({ onSignedOut: () => signedOut.push(index) }));
    for (const tab of tabs) tab.show('a.b');
    await allRight(tabs);
    for (const tab of tabs) tab.caller = 'eve';
    const had = tabs.map((tab) => tab.frames.get('a.b')?.length ?? 0);
    at(tabs, 1).show('c.d');
    await until(() =>
      tabs.every((tab, index) =>
        tab.frames
          .get('a.b')
          ?.slice(had[index])
          .some(({ data }) => !data),
      ),
    );
    await allRight(tabs);
    expect(signedOut.toSorted()).toEqual([0, 1, 2]);
    expect(browser.server.streams.size).toBe(1);
    expect([...browser.channels].filter(([, members]) => members.size > 0).map(([name]) => name)).toEqual([
      'rx1:/rpc:eve',
    ]);
  });

  describe('and whose results were kept', () => {
    /** Keep what somebody sees of `a.b` and `c.d`, and close their page. */
    async function leaveBehind(setting: TabSetting): Promise<void> {
      const tab = browser.open({ isStored: true, ...setting });
      for (const path of ['a.b', 'c.d']) tab.show(path);
      await until(() => tab.isRight('a.b') && tab.isRight('c.d'));
      tab.close();
      await settle();
    }

    test('a page that does not say whose it is keeps nothing, so the next one shows nothing of anybody', async () => {
      await leaveBehind({});
      expect(browser.storage.length).toBe(0);
      const eve = browser.open({ isStored: true, caller: 'eve' });
      eve.show('a.b');
      expect(eve.now('a.b')?.data).toBeUndefined();
      await allRight([eve]);
    });

    test.each(['a stream', 'an answer'])(
      '%s names another caller: nothing of the former stays, in one turn',
      async (by) => {
        await leaveBehind({ identity: 'ada' });
        const left: [string, boolean, number][] = [];
        const eve = browser.open({ isStored: true, identity: 'ada', caller: 'eve', onSignedOut: () => look() });
        const look = (): void => void left.push(['a.b', eve.now('a.b')?.data === undefined, browser.storage.length]);
        eve.show('a.b');
        expect(eve.now('a.b')).toMatchObject({ isStale: true, data: { count: 0 } });
        browser.server.write('a.b');
        if (by === 'an answer') eve.show('e.f');
        await allRight([eve]);
        expect(left).toEqual([['a.b', true, 0]]);
        expect(eve.frames.get('a.b')?.some(({ data, isStale }) => data?.count === 0 && !isStale)).toBe(false);
        // What comes from now on is not of whom the page names.
        await settle();
        expect(browser.storage.length).toBe(0);
        eve.close();
        const ada = browser.open({ isStored: true, identity: 'ada' });
        ada.show('a.b');
        expect(ada.now('a.b')?.data).toBeUndefined();
      },
    );

    test('the others of that name find out too', async () => {
      await leaveBehind({ identity: 'ada' });
      const tabs = [0, 1].map(() => browser.open({ isStored: true, identity: 'ada' }));
      for (const tab of tabs) tab.show('a.b');
      await allRight(tabs);
      for (const tab of tabs) tab.caller = 'eve';
      at(tabs, 0).show('e.f');
      await until(() => tabs.every((tab) => tab.frames.get('a.b')?.some(({ data }) => data === undefined)));
      await allRight(tabs);
      await settle();
      expect(browser.storage.length).toBe(0);
    });

    test('two tabs of two users each find their own, and none of the other', async () => {
      await leaveBehind({ identity: 'ada' });
      const [ada, eve] = ['ada', 'eve'].map((name) =>
        browser.open({ isStored: true, identity: name, caller: name }),
      ) as [Tab, Tab];
      for (const tab of [ada, eve]) tab.show('a.b');
      expect([ada, eve].map((tab) => tab.now('a.b')?.data)).toEqual([undefined, undefined]);
      await allRight([ada, eve]);
      const again = browser.open({ isStored: true, identity: 'eve', caller: 'eve' });
      again.show('a.b');
      expect(again.now('a.b')?.data).toEqual({ path: 'a.b', count: 0 });
    });

    test('what a tab of another caller tells in the same group is not taken', async () => {
      const ada = browser.open({ isStored: true, identity: 'ada' });
      ada.show('a.b');
      await allRight([ada]);
      const eve = browser.open({ isStored: true, identity: 'ada', caller: 'eve' });
      eve.show('c.d');
      ada.show('c.d');
      await allRight([ada, eve], 'c.d');
      await settle();
      const whose = [...browser.storage.texts.values()].map((text) => text.split('|')[1]);
      expect(whose.includes('eve') && whose.includes('ada')).toBe(false);
      expect([ada.streams, eve.streams]).toEqual([1, 1]);
    });

    test('a mutation that waits is never sent as another', async () => {
      const tab = browser.open();
      tab.show('a.b');
      await allRight([tab]);
      const updates = [{ path: 'a.b', update: (data: unknown) => data }];
      const [one, two] = [1, 2].map((input) => tab.engine.mutate({ path: 'a.set', input }, updates, {}));
      const outcomes = Promise.allSettled([one, two]);
      await until(() => browser.server.asked.includes('a.set'));
      tab.engine.reidentify('forget');
      expect((await outcomes).map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
      expect(browser.server.asked.filter((path) => path === 'a.set')).toHaveLength(1);
    });
  });

  test('who has new credentials leads, and the others go on with that', async () => {
    const [leader, other] = (await tabsOf(2)) as [Tab, Tab];
    browser.server.refusal = 401;
    browser.server.forget(leader);
    await until(() => other.engine.status.stream === 'reconnecting');
    await pass(1000);
    await until(() => other.engine.status.stream === 'refused');
    browser.server.refusal = null;
    other.engine.reidentify('credentials');
    await allRight([leader, other]);
    expect([leader.streams, other.streams]).toEqual([0, 1]);
  });

  test('the page is told once that it needs other credentials, however many refusals there are', async () => {
    let count = 0;
    browser.server.refusal = 401;
    const tab = browser.open({ onUnauthorized: () => (count += 1) });
    tab.show('a.b');
    tab.show('c.d');
    await settle();
    await pass(5000);
    expect(count).toBe(1);
    tab.engine.reidentify('credentials');
    await settle();
    expect(count).toBe(2);
  });
});

describe('without locks', () => {
  test('a page that is seen has a stream; one that is hidden for a while has none, and goes on where it was', async () => {
    const tabs = [true, false].map((isHidden) => browser.open({ isHidden, hasLocks: false }));
    for (const tab of tabs) tab.show('a.b');
    await settle();
    const [hidden, seen] = tabs as [Tab, Tab];
    await pass(10_000);
    await browser.tick();
    expect([hidden.streams, seen.streams]).toEqual([0, 1]);
    expect(hidden.now('a.b')).toMatchObject({ isStale: true, data: { count: 0 } });
    seen.isHidden = true;
    hidden.isHidden = false;
    hidden.engine.nudge();
    browser.server.write('a.b');
    await allRight([hidden, seen]);
    await pass(10_000);
    await browser.tick();
    expect([hidden.streams, seen.streams]).toEqual([1, 0]);
    expect(seen.now('a.b')?.isStale).toBe(true);
  });

  test('forbidden locks are no locks', async () => {
    const refuse = (): Promise<never> => Promise.reject(new DOMException('', 'SecurityError'));
    vi.spyOn(browser.locks, 'of').mockReturnValue({ request: refuse, query: refuse });
    const tab = browser.open();
    tab.show('a.b');
    await allRight([tab]);
    expect(tab.streams).toBe(1);
  });
});

describe('what nobody shows', () => {
  test('counts as fresh no more', async () => {
    const tab = browser.open();
    tab.show('a.b');
    await allRight([tab]);
    tab.hide('a.b');
    await until(() => tab.streams === 0);
    browser.server.write('a.b');
    tab.show('a.b');
    expect(tab.now('a.b')).toMatchObject({ isStale: true, data: { count: 0 } });
    await allRight([tab]);
  });
});
