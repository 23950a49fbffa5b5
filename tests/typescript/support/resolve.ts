/** Preloaded into every Node program of the tests (`tests/support/node.py`): they find packages wherever they stand. */

import { registerHooks } from 'node:module';

import { BESIDE_PACKAGES, isPackageOfOthers } from './packages.ts';

registerHooks({
  resolve(specifier, context, nextResolve) {
    const isOthers = isPackageOfOthers(specifier, context.parentURL);
    return nextResolve(specifier, isOthers ? { ...context, parentURL: BESIDE_PACKAGES.href } : context);
  },
});
