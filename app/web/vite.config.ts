/** Builds the page: `make run` does, with the Node of the package index. What it writes is not committed. */

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { defineConfig, type Plugin } from 'vite';

import { ICON_NAMES } from './src/icon-names.ts';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const MODULE = 'virtual:icons';

/** The shapes of the icons that are used, of the 1,900 that lucide has: `{ name: [[tag, attributes], ...] }`. */
function icons(): Plugin {
  return {
    name: 'icons',
    resolveId: (id) => (id === MODULE ? `\0${MODULE}` : null),
    load: (id) => {
      if (id !== `\0${MODULE}`) return null;
      const file = `${HERE}node_modules/lucide-static/icon-nodes.json`;
      const all = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
      const used = Object.fromEntries(ICON_NAMES.map((name) => [name, all[name]]));
      const missing = ICON_NAMES.filter((name) => used[name] === undefined);
      if (missing.length > 0) throw new Error(`lucide has no icon ${missing.join(', ')}`);
      return `export default ${JSON.stringify(used)};`;
    },
  };
}

export default defineConfig({
  root: HERE,
  plugins: [icons()],
  // The generated client stands elsewhere, and takes the packages of its user: these here.
  resolve: { dedupe: ['@tanstack/query-core', '@trpc/client', '@trpc/server', 'react', 'react-dom'] },
  // `light-dark()` stays what it is; fonts are files, as the content security policy knows no `data:`.
  build: {
    target: ['chrome123', 'edge123', 'firefox120', 'safari17.5'],
    assetsInlineLimit: 0,
    emptyOutDir: true,
    modulePreload: { polyfill: false },
  },
});
