/**
 * Bundle the pages that browser tests load: each `pages/<name>.ts` or `.tsx` becomes `<name>.js`, and `<name>.html`
 * loads it. The argument is the folder that they are written into.
 */

import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const HERE = fileURLToPath(new URL('..', import.meta.url));

const [folder = ''] = process.argv.slice(2);
const pages = readdirSync(join(HERE, 'pages')).filter((file) => /^[a-z_]+\.tsx?$/.test(file));
await build({
  entryPoints: pages.map((file) => join(HERE, 'pages', file)),
  outdir: folder,
  bundle: true,
  splitting: true,
  format: 'esm',
  target: 'es2022',
  sourcemap: 'inline',
  jsx: 'automatic',
  define: { 'process.env.NODE_ENV': '"production"' },
  nodePaths: [join(HERE, 'node_modules')],
});
for (const file of pages) {
  const name = file.replace(/\.tsx?$/, '');
  const head = `<meta charset="utf-8"><title>${name}</title><script type="module" src="${name}.js"></script>`;
  writeFileSync(join(folder, `${name}.html`), `<!doctype html><html lang="en">${head}<main></main></html>`);
}
