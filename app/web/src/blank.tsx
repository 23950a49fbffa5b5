/** What stands where there is nothing to show, and says why and what to do. */

import type { ReactNode } from 'react';

import { Icon } from './icon.tsx';
import type { IconName } from './icon-names.ts';

export interface BlankProps {
  readonly icon: IconName;
  readonly title: string;
  readonly text: string;
  readonly level?: 1 | 2;
  /** Buttons, two at most. */
  readonly children?: ReactNode;
}

export function Blank({ icon, title, text, level = 2, children }: BlankProps): ReactNode {
  const Heading = level === 1 ? 'h1' : 'h2';
  return (
    <div className="blank">
      <span className="glyph">
        <Icon name={icon} look="l" />
      </span>
      <Heading>{title}</Heading>
      <p>{text}</p>
      {children !== undefined && <div className="row acts">{children}</div>}
    </div>
  );
}

/** A bar in the place of text that is on its way. */
export function Bone({
  width,
  height = 10,
  look = '',
}: {
  width: number | string;
  height?: number;
  look?: string;
}): ReactNode {
  return <span className={`sk ${look}`} style={{ width, height }} />;
}
