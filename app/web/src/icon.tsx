/** Icons and the mark, which say nothing to a screen reader: what they stand for is written beside them. */

import shapes from 'virtual:icons';
import { createElement, type ReactNode } from 'react';

import type { IconName } from './icon-names.ts';

export interface IconProps {
  readonly name: IconName;
  /** `s` is 14 px, `l` 20 px, without one 16 px; `spin` turns. */
  readonly look?: string;
}

export function Icon({ name, look = '' }: IconProps): ReactNode {
  const drawn = (shapes[name] ?? []).map(([tag, attributes], key) => createElement(tag, { key, ...attributes }));
  return (
    <svg className={`ic ${look}`} viewBox="0 0 24 24" aria-hidden="true">
      {drawn}
    </svg>
  );
}

/** TeamHub's own. */
export function Mark({ size = 24 }: { readonly size?: number }): ReactNode {
  return (
    <svg className="mark" viewBox="0 0 24 24" width={size} height={size} aria-hidden="true">
      <rect width="24" height="24" rx="7" fill="var(--accent)" />
      <g stroke="#fff" strokeWidth="1.6" strokeLinecap="round">
        <path d="M12 12 7 7.5M12 12l5.2-3.6M12 12l.6 5.6" />
      </g>
      <g fill="#fff">
        <circle cx="12" cy="12" r="2.6" />
        <circle cx="6.8" cy="7.2" r="1.7" />
        <circle cx="17.4" cy="8.2" r="1.7" />
        <circle cx="12.7" cy="17.9" r="1.7" />
      </g>
    </svg>
  );
}

/** Two letters on a hue that the name decides: agents are square, people round. */
export function Avatar({ name, look = '' }: { readonly name: string; readonly look?: string }): ReactNode {
  const hue = ([...name].reduce((sum, letter) => sum * 31 + (letter.codePointAt(0) ?? 0), 7) * 137.5) % 360;
  return (
    <span className={`av ${look}`} style={{ '--h': hue } as React.CSSProperties} aria-hidden="true">
      {name.slice(0, 2)}
    </span>
  );
}
