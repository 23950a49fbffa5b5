/**
 * Start Chromium, and pass on messages of its DevTools protocol: a line of input is one to it, a line of output one from
 * it. So a test in Python says all of it itself. Playwright is not asked: it makes every tab count as visible, and
 * keeps pages out of the back and forward cache.
 *
 * The argument is the folder of its profile. Chromium ends with this program.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';

import { installed } from '../support/launch.ts';

const ARGUMENTS = [
  '--headless=new',
  '--remote-debugging-pipe',
  '--no-first-run',
  '--no-default-browser-check',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-extensions',
  '--disable-component-update',
  '--disable-background-networking',
  '--disable-sync',
  '--no-zygote',
];

/** The protocol ends a message by a NUL; JSON has neither that nor a line feed, so each may stand for the other. */
const NUL = 0;
const LINE_FEED = 10;

const [profile = ''] = process.argv.slice(2);
const isRoot = process.getuid?.() === 0;
const { executablePath = '', env } = installed();
const chromium = spawn(
  executablePath,
  [...ARGUMENTS, ...(isRoot ? ['--no-sandbox'] : []), `--user-data-dir=${profile}`],
  {
    env: { ...process.env, ...env },
    // Its own words go where this program's go.
    stdio: ['ignore', 'ignore', 'inherit', 'pipe', 'pipe'],
  },
);
chromium.on('error', (error) => {
  throw error;
});
const commands = chromium.stdio[3] as Writable;
const answers = chromium.stdio[4] as Readable;

function passOn(from: Readable, to: Writable, end: number, becomes: number): void {
  from.on('data', (chunk: Buffer) => to.write(chunk.map((byte) => (byte === end ? becomes : byte))));
}

passOn(process.stdin, commands, LINE_FEED, NUL);
passOn(answers, process.stdout, NUL, LINE_FEED);
process.stdin.on('end', () => chromium.kill());
const [code, signal] = await once(chromium, 'exit');
console.error(`Chromium has ended: ${code ?? signal}`);
process.exit();
