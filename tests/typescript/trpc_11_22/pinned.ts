// The checks with the client that @trpc/tanstack-react-query is pinned to: node pinned.ts URL

import * as client from '@trpc/client';
import { type Library, run } from '../trpc/checks.ts';

await run(client as unknown as Library, process.argv[2] ?? '');
