import { createReactive } from './client.js';

const reactive = createReactive({ url: '/' });
const room = 'kitchen';
const [list, form, status] = ['ul', 'form', 'output'].map((name) => document.querySelector(name));

reactive.query('notes.get_all', { room }).subscribe(({ data = [], isStale, error }) => {
  list.ariaBusy = String(isStale);
  list.replaceChildren(
    ...data.map(({ text, written_at }) => {
      const row = document.createElement('li');
      row.textContent = `${text} (${written_at.toLocaleTimeString()})`;
      return row;
    }),
  );
  if (error !== null) status.textContent = error.message;
});

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  await reactive.call('notes.add', { room, text: form.elements.text.value });
  form.reset();
});

reactive.onStatus(() => {
  status.textContent = reactive.status.state;
});
