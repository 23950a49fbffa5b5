import { defineConfig } from 'vitest/config';

import base from '../vitest.config.ts';

/** The suites that need a server, whose URL stands in `TEAMHUB_URL`: pytest starts it, and them. */
export default defineConfig({
  ...base,
  // As for `resolve` in the other one: Svelte's reactivity is that of a browser, though Node runs it.
  ssr: { resolve: { conditions: ['browser', 'module', 'development'] } },
  test: { ...base.test, include: ['server/**/*.suite.ts'], server: { deps: { inline: [/svelte/] } } },
});
