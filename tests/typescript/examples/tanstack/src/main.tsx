import { QueryClientProvider } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';

import { queryClient } from './api.ts';
import { createReactive } from './client/index.ts';
import { listen } from './listen.ts';
import { Room } from './room.tsx';

const room = 'kitchen';

// Each of the two is a way; a page takes one of them.
if (location.hash === '#listen') listen([{ path: 'notes.get_all', input: { room } }]);
else createReactive({ url: '/', client: queryClient, codecs: {} });

const place = document.getElementById('page');
if (place === null) throw new Error('index.html has no #page');
createRoot(place).render(
  <StrictMode>
    <QueryClientProvider client={queryClient}>
      <Room room={room} />
    </QueryClientProvider>
  </StrictMode>,
);
