/**
 * The runtime has no packages of its own beside it: they are its user's. Here they are those of `tests/typescript`, for
 * every file that stands elsewhere: the runtime in `reactive_rpc/typescript`, generated clients, programs in a
 * temporary folder.
 */

import { pathToFileURL } from 'node:url';

const HERE = new URL('..', import.meta.url);

/** A file that would find the packages, if it existed. */
export const BESIDE_PACKAGES = new URL('importer.js', HERE);

/** Tell whether an import names a package (`@trpc/client`, not `./state.ts` or `node:fs`) and comes from elsewhere. */
export function isPackageOfOthers(specifier: string, importer: string | undefined): boolean {
  if (importer === undefined || !/^@?[a-z]/.test(specifier) || specifier.includes(':')) return false;
  const url = importer.startsWith('file:') ? importer : pathToFileURL(importer).href;
  return !url.startsWith(HERE.href);
}
