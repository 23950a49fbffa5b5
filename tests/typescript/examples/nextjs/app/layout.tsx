import type { ReactNode } from 'react';

import { Provider } from './provider.tsx';

export default function Layout({ children }: { readonly children: ReactNode }): ReactNode {
  return (
    <html lang="en">
      <head>
        <link rel="icon" href="data:," />
      </head>
      <body>
        <Provider>{children}</Provider>
      </body>
    </html>
  );
}
