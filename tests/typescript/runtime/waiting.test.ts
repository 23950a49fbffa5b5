import { expect, test } from 'vitest';

import { WaitingStore } from '../../../reactive_rpc/typescript/runtime/waiting.ts';
import { Texts } from './browser.ts';

const MADE = { path: 'messages.send', json: { body: 'at nine' }, scope: 'ada' };

function storeOn(texts: Texts, identity: string | null = 'ada'): WaitingStore {
  return new WaitingStore({ storage: () => texts, identity });
}

test('what is added is found again by the next page, in the order it was made, with keys of our own', () => {
  const texts = new Texts();
  const store = storeOn(texts);
  const added = [1, 2, 3].map((body) => store.add({ ...MADE, json: { body } }));
  expect(added).not.toContain(null);
  expect(storeOn(texts).all()).toEqual(added);
  expect(new Set(added.map((one) => one?.key)).size).toBe(3);
});

test('a first try and a refusal are kept', () => {
  const texts = new Texts();
  const store = storeOn(texts);
  const waiting = store.add(MADE);
  const tried = waiting && store.try(waiting);
  expect(tried?.triedAt).not.toBeNull();
  const refusal = {
    error: { code: 'CONFLICT', message: 'no', status: 409, type: null, details: null },
    mayBeMade: true,
  };
  if (tried) store.refuse(tried, refusal);
  expect(storeOn(texts).all()).toEqual([{ ...tried, refusal }]);
});

test('nothing of another caller is found, or stays', () => {
  const texts = new Texts();
  storeOn(texts).add(MADE);
  expect(storeOn(texts, 'eve').all()).toEqual([]);
  expect(texts.length).toBe(0);
});

test('without a caller, or without room, nothing can wait', () => {
  expect(storeOn(new Texts(), null).add(MADE)).toBeNull();
  expect(storeOn(new Texts()).add({ ...MADE, json: 'x'.repeat(200_000) })).toBeNull();
  expect(storeOn(new Texts()).add({ ...MADE, json: { file: new Blob() } })).toBeNull();
});

test('what is damaged is removed', () => {
  const texts = new Texts();
  const store = storeOn(texts);
  store.add(MADE);
  for (const name of texts.texts.keys()) texts.setItem(name, '000000000000000|{');
  expect(store.all()).toEqual([]);
  expect(texts.length).toBe(0);
});
