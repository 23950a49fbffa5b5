/** Copies of the runtime's own modules with one line broken on purpose: what the games must find. */

import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

import type { Runtime } from './browser.ts';
import type { PagesModule } from './pages_world.ts';
import type { QueueModules } from './queue_games.ts';
import type { Reducer } from './world.ts';

const RUNTIME = new URL('../../../reactive_rpc/typescript/runtime/', import.meta.url);
export interface Fault {
  readonly name: string;
  readonly file: `${string}.ts`;
  /** Must stand there exactly once: who changes the line changes the fault. */
  readonly line: string;
  readonly broken: string;
}

/** Call `use` with the reducer that has a fault. */
export function withFault<R>(fault: Fault, use: (reducer: Reducer) => R): Promise<R> {
  return withCopy(fault, async (folder) => {
    const [state, coverage] = await Promise.all([load(folder, 'state.ts'), load(folder, 'coverage.ts')]);
    return use({ ...state, ...coverage } as Reducer);
  });
}

/** Call `use` with the lists in pages that have a fault. */
export function withFaultOfPages<R>(fault: Fault, use: (pages: PagesModule) => R): Promise<R> {
  return withCopy(fault, async (folder) => use((await load(folder, 'pages.ts')) as PagesModule));
}

/** Call `use` with the queue of mutations that has a fault. */
export function withFaultOfQueue<R>(fault: Fault, use: (modules: QueueModules) => Promise<R>): Promise<R> {
  return withCopy(fault, async (folder) => {
    const modules = await Promise.all(['queue.ts', 'errors.ts'].map((name) => load(folder, name)));
    return use(Object.assign({}, ...modules) as QueueModules);
  });
}

/** Call `use` with a whole runtime that has a fault. */
export function withFaultOfRuntime<R>(fault: Fault, use: (runtime: Runtime) => Promise<R>): Promise<R> {
  return withCopy(fault, async (folder) => {
    const names = ['engine', 'gate', 'links', 'reactive', 'rendering', 'store', 'tabs', 'wire'].map(
      (name) => `${name}.ts`,
    );
    const modules = await Promise.all(names.map((name) => load(folder, name)));
    return use(Object.assign({}, ...modules) as Runtime);
  });
}

async function withCopy<R>(fault: Fault, use: (folder: string) => Promise<R>): Promise<R> {
  const folder = await mkdtemp(join(tmpdir(), 'reactive-mutant-'));
  try {
    const modules = (await readdir(RUNTIME)).filter((name) => name.endsWith('.ts'));
    for (const name of modules) await cp(fileURLToPath(new URL(name, RUNTIME)), join(folder, name));
    const path = join(folder, fault.file);
    await writeFile(path, broken(await readFile(path, 'utf8'), fault));
    return await use(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function load(folder: string, name: string): Promise<object> {
  return (await import(pathToFileURL(join(folder, name)).href)) as object;
}

function broken(source: string, fault: Fault): string {
  const parts = source.split(fault.line);
  if (parts.length !== 2) throw new Error(`"${fault.line}" stands ${parts.length - 1} times in ${fault.file}`);
  return parts.join(fault.broken);
}
