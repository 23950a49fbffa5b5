/** A page that shows queries; the test talks to `page`. */

import { orders, Page } from './page.ts';

declare global {
  var page: Page;
}

globalThis.page = new Page(orders());
