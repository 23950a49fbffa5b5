/** Builds the page in Svelte: `make svelte` does. What it writes is not committed. */

import { fileURLToPath } from 'node:url';

import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  plugins: [svelte({ configFile: false })],
  // The generated client stands elsewhere, and takes the packages of its user: these here.
  resolve: { dedupe: ['@tanstack/query-core', '@trpc/client', '@trpc/server', 'svelte'] },
  // Images and fonts are files, as the content security policy knows no `data:`.
  build: { target: 'es2022', assetsInlineLimit: 0, emptyOutDir: true, modulePreload: { polyfill: false } },
});
