'use client';

import type { DehydratedState } from '@tanstack/query-core';
import Link from 'next/link';
import { type ReactNode, useState } from 'react';

import { useReactive, useReactiveClient, useReactiveMutation, useReactiveStatus } from '../../client/react.ts';
import { show } from '../../reactive.ts';

export function Room({ room, rendered }: { readonly room: string; readonly rendered: DehydratedState }): ReactNode {
  const reactive = useReactiveClient();
  useState(() => show(reactive, rendered));
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
      <Link href="/attic">attic</Link>
    </main>
  );
}
