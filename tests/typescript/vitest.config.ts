import { fileURLToPath } from 'node:url';

import { defineConfig } from 'vitest/config';

import { BESIDE_PACKAGES, isPackageOfOthers } from './support/packages.ts';
import { PATIENCE_MS } from './support/patience.ts';

export default defineConfig({
  plugins: [
    {
      name: 'packages-of-others',
      enforce: 'pre',
      resolveId(specifier, importer) {
        const isOthers = isPackageOfOthers(specifier, importer);
        return isOthers ? this.resolve(specifier, fileURLToPath(BESIDE_PACKAGES), { skipSelf: true }) : null;
      },
    },
  ],
  // Without it, Svelte's `createSubscriber` is the one for servers, which does nothing.
  resolve: { conditions: ['browser'] },
  // How long a test takes says nothing on a machine that does other work too.
  test: {
    include: ['**/*.test.{ts,tsx}'],
    testTimeout: 300_000,
    hookTimeout: 300_000,
    expect: { poll: { timeout: PATIENCE_MS } },
  },
});
