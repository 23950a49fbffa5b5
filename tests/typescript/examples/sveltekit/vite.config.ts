import adapter from '@sveltejs/adapter-node';
import { sveltekit } from '@sveltejs/kit/vite';
import { defineConfig } from 'vite';

export default defineConfig({
  plugins: [sveltekit({ adapter: adapter() })],
  server: { proxy: { '/rpc': 'http://127.0.0.1:8000', '/trpc': 'http://127.0.0.1:8000' } },
});
