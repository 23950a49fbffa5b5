import { type ReactNode, useState } from 'react';
import { Link } from 'react-router';

import { useReactive, useReactiveClient, useReactiveMutation, useReactiveStatus } from '../client/react.ts';
import { reactiveOfPage, render, show } from '../reactive.ts';
import type { Route } from './+types/room.ts';

/** Runs on the server, for the first page that a visitor opens. */
export async function loader({ request, params: { room } }: Route.LoaderArgs) {
  return { rendered: await render(request, (reactive) => reactive.prefetch('notes.get_all', { room })) };
}

/** Runs in the browser, for every page after it: no server of ours is in between. */
export async function clientLoader({ params: { room } }: Route.ClientLoaderArgs) {
  await reactiveOfPage().prefetch('notes.get_all', { room });
  return { rendered: null };
}

export default function Room({ params: { room }, loaderData: { rendered } }: Route.ComponentProps): ReactNode {
  const reactive = useReactiveClient();
  useState(() => rendered && show(reactive, rendered));
  const { data = [], isStale, error } = useReactive('notes.get_all', { room });
  const { mutate } = useReactiveMutation('notes.add');
  const { state } = useReactiveStatus();
  return (
    <main>
      <h1>{room}</h1>
      <ul aria-busy={isStale}>
        {data.map(({ id, text, written_at }) => (
          <li key={id}>
            {text} <time>{written_at.toISOString()}</time>
          </li>
        ))}
      </ul>
      <form action={(form) => mutate({ room, text: String(form.get('text')) }).then(() => undefined)}>
        <input name="text" required aria-label="Note" />
      </form>
      <output>{error?.message ?? state}</output>
      <Link to="/attic">attic</Link>
    </main>
  );
}
