import { useMutation, useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';

import { trpc } from './api.ts';

export function Room({ room }: { readonly room: string }): ReactNode {
  const { data = [], error } = useQuery(trpc.notes.get_all.queryOptions({ room }));
  const { mutateAsync } = useMutation(trpc.notes.add.mutationOptions());
  return (
    <main>
      <ul>
        {data.map(({ id, text, written_at }) => (
          <li key={id}>
            {text} <time>{written_at}</time>
          </li>
        ))}
      </ul>
      <form action={(form) => mutateAsync({ room, text: String(form.get('text')) }).then(() => undefined)}>
        <input name="text" required aria-label="Note" />
      </form>
      <p>{error?.message}</p>
    </main>
  );
}
