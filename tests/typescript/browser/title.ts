/** Print the title of a page, and the version of the browser that has loaded it. */

import { launch } from '../support/launch.ts';

const [url = 'about:blank'] = process.argv.slice(2);
const browser = await launch();
const page = await browser.newPage();
await page.goto(url);
console.log(JSON.stringify({ title: await page.title(), version: browser.version() }));
await browser.close();
