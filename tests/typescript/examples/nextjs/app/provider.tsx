'use client';

import { type ReactNode, useState } from 'react';

import { ReactiveProvider } from '../client/react.ts';
import { reactiveOfPage } from '../reactive.ts';

export function Provider({ children }: { readonly children: ReactNode }): ReactNode {
  const [reactive] = useState(reactiveOfPage);
  return <ReactiveProvider reactive={reactive}>{children}</ReactiveProvider>;
}
