/**
 * A real Chromium, from npm alone: `@sparticuz/chromium` packs the browser with the libraries and fonts that a bare
 * machine lacks, `playwright-core` drives it. It is for Linux on x64; elsewhere `CHROMIUM_PATH` names one that is
 * installed.
 */

import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { type Browser, chromium, type LaunchOptions } from 'playwright-core';

const MODULES = new URL('../node_modules/', import.meta.url);
const PACKAGE = new URL('@sparticuz/chromium/', MODULES);

/** What is packed: Chromium, software that draws for it, fonts, and libraries that stand in for the system's. */
const PACKED = ['chromium.br', 'swiftshader.tar.br', 'fonts.tar.br', 'al2023.tar.br'];

/** The fonts beside it. The package's own configuration names folders of the machine that it is made for; and a Chromium
 * that finds no font at all crashes at the first field of a form. */
const FONTS = `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir prefix="relative">fonts</dir><cachedir prefix="xdg">fonts</cachedir></fontconfig>
`;

const UNPACK = `
const { inflate } = await import('@sparticuz/chromium');
await Promise.all(process.argv.slice(1).map((file) => inflate(file)));
`;

/** Start Chromium. Close it before the program ends: a browser that is open keeps Node alive. */
export async function launch(options: LaunchOptions = {}): Promise<Browser> {
  const isRoot = process.getuid?.() === 0;
  return chromium.launch({ ...installed(), chromiumSandbox: !isRoot, ...options });
}

/** Return where Chromium is, and the environment that it needs. */
export function installed(): Pick<LaunchOptions, 'executablePath' | 'env'> {
  const own = process.env['CHROMIUM_PATH'];
  if (own) return { executablePath: own };
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Error(
      `npm has a Chromium for Linux on x64 alone, and this is ${process.platform} on ${process.arch}: ` +
        'install one, and name it by CHROMIUM_PATH=/path/to/chromium',
    );
  }
  const folder = unpacked();
  const libraries = [`${folder}/al2023/lib`, process.env['LD_LIBRARY_PATH']].filter(Boolean).join(':');
  // Its own fonts even where there are others: a page looks the same, and a picture of it, on every machine.
  const fonts = { FONTCONFIG_PATH: `${folder}/fonts`, XDG_CACHE_HOME: `${folder}/cache` };
  const environment = { ...process.env, LD_LIBRARY_PATH: libraries, ...fonts };
  return { executablePath: `${folder}/chromium`, env: environment };
}

/** Return the folder with Chromium, which is named after its version and made by the first program that needs it. */
function unpacked(): string {
  const { version } = JSON.parse(readFileSync(new URL('package.json', PACKAGE), 'utf8')) as { version: string };
  const folder = fileURLToPath(new URL(`.chromium-${version}-with-own-fonts`, MODULES));
  if (!existsSync(folder)) unpack(folder);
  return folder;
}

/** Unpack beside `folder`, then rename: several programs may do so at once, and none sees a half of it. */
function unpack(folder: string): void {
  const part = mkdtempSync(`${folder}-`);
  const packed = PACKED.map((name) => fileURLToPath(new URL(`bin/${name}`, PACKAGE)));
  try {
    // In a process of its own, as the package unpacks into the temporary folder of its process.
    execFileSync(process.execPath, ['--input-type=module', '--eval', UNPACK, ...packed], {
      cwd: fileURLToPath(MODULES),
      env: { ...process.env, TMPDIR: part },
    });
    writeFileSync(`${part}/fonts/fonts.conf`, FONTS);
    // Whoever installs may be another user than who tests.
    for (const path of [part, `${part}/chromium`]) chmodSync(path, 0o755);
    renameSync(part, folder);
  } catch (error) {
    if (!existsSync(folder)) throw error;
  } finally {
    rmSync(part, { recursive: true, force: true });
  }
}
