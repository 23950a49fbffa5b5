// node listen_pinned.ts URL

import * as client from '@trpc/client';
import { listen } from '../trpc/listener.ts';

listen(client as unknown as Parameters<typeof listen>[0], process.argv[2] ?? '');
