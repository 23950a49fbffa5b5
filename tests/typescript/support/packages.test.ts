import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect, test } from 'vitest';

import { BESIDE_PACKAGES, isPackageOfOthers } from './packages.ts';

const ELSEWHERE = join(tmpdir(), 'client.ts');

test.each(['@trpc/client', '@tanstack/query-core', 'react', 'react/jsx-runtime', 'svelte/reactivity'])(
  'another folder finds %s here',
  (specifier) => {
    expect(isPackageOfOthers(specifier, ELSEWHERE)).toBe(true);
    expect(createRequire(BESIDE_PACKAGES).resolve(specifier)).toContain('node_modules');
  },
);

test.each(['./state.ts', '../state.ts', '/state.ts', 'node:fs', 'file:///state.ts', '#internal'])(
  '%s names no package',
  (specifier) => {
    expect(isPackageOfOthers(specifier, ELSEWHERE)).toBe(false);
  },
);

test('a folder here that has packages of its own keeps them', () => {
  const importer = fileURLToPath(new URL('../trpc_11_22/client.ts', import.meta.url));
  expect(isPackageOfOthers('@trpc/client', importer)).toBe(false);
});
