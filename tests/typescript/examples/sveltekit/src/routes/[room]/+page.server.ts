import { render } from '../../lib/reactive.ts';
import type { PageServerLoad } from './$types';

export const load: PageServerLoad = async ({ request, params: { room } }) => ({
  room,
  rendered: await render(request, (reactive) => reactive.prefetch('notes.get_all', { room })),
});
