import { defineConfig } from 'vitest/config';

import base from '../vitest.config.ts';

/** The suites that need a server, whose URL stands in `TEAMHUB_URL`: pytest starts it, and them. */
export default defineConfig({ ...base, test: { include: ['server/**/*.suite.ts'], testTimeout: 60_000 } });
