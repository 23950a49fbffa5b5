// node listen_newest.ts URL

import * as client from '@trpc/client';
import { listen } from './listener.ts';

listen(client, process.argv[2] ?? '');
