// node teamhub_pinned.ts URL EMAIL PASSWORD

import * as client from '@trpc/client';

import { run } from '../trpc/teamhub.ts';

const [url = '', email = '', password = ''] = process.argv.slice(2);
await run(client as unknown as Parameters<typeof run>[0], url, email, password);
