// The checks with the newest client: node newest.ts URL

import * as client from '@trpc/client';
import { run } from './checks.ts';

await run(client, process.argv[2] ?? '');
