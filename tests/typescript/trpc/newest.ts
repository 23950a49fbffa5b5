// The checks with the newest client: node newest.ts URL [CHECK THAT IS LEFT OUT]...

import * as client from '@trpc/client';
import { run } from './checks.ts';

const [url = '', ...leftOut] = process.argv.slice(2);
await run(client, url, ...leftOut);
