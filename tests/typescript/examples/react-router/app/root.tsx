import { type ReactNode, useState } from 'react';
import { Links, Meta, Outlet, Scripts, ScrollRestoration } from 'react-router';

import { ReactiveProvider } from './client/react.ts';
import { reactiveOfPage } from './reactive.ts';

export function Layout({ children }: { readonly children: ReactNode }): ReactNode {
  return (
    <html lang="en">
      <head>
        <meta charSet="utf-8" />
        <link rel="icon" href="data:," />
        <Meta />
        <Links />
      </head>
      <body>
        {children}
        <ScrollRestoration />
        <Scripts />
      </body>
    </html>
  );
}

export default function App(): ReactNode {
  const [reactive] = useState(reactiveOfPage);
  return (
    <ReactiveProvider reactive={reactive}>
      <Outlet />
    </ReactiveProvider>
  );
}
