import { headers } from 'next/headers';
import type { ReactNode } from 'react';

import { render } from '../../reactive.ts';
import { Room } from './room.tsx';

/** Runs on the server: for the first page that a visitor opens, and for each that is opened later. */
export default async function Page({ params }: { readonly params: Promise<{ room: string }> }): Promise<ReactNode> {
  const { room } = await params;
  const rendered = await render(await headers(), (reactive) => reactive.prefetch('notes.get_all', { room }));
  return <Room room={room} rendered={rendered} />;
}
