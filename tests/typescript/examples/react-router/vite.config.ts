import { reactRouter } from '@react-router/dev/vite';
import { defineConfig } from 'vite';

export default defineConfig({
  plugins: [reactRouter()],
  server: { proxy: { '/rpc': 'http://127.0.0.1:8000', '/trpc': 'http://127.0.0.1:8000' } },
});
