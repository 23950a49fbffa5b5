// The checks with the client that @trpc/tanstack-react-query is pinned to: node pinned.ts URL [CHECK THAT IS LEFT OUT]...

import * as client from '@trpc/client';
import { type Library, run } from '../trpc/checks.ts';

const [url = '', ...leftOut] = process.argv.slice(2);
await run(client as unknown as Library, url, ...leftOut);
