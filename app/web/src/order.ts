/** The order of a list, which holds still while somebody points at it or has the focus in it. */

import { type HTMLAttributes, type ReactEventHandler, useRef, useState } from 'react';

/** Whether somebody points at a list or has the focus in it; and what the list must tell for that. */
export function useHeld(): readonly [boolean, HTMLAttributes<HTMLElement>] {
  const [isPointed, setPointed] = useState(false);
  const [isFocused, setFocused] = useState(false);
  const blur: ReactEventHandler<HTMLElement> = ({ currentTarget, nativeEvent }) => {
    const next = (nativeEvent as FocusEvent).relatedTarget;
    if (!(next instanceof Node && currentTarget.contains(next))) setFocused(false);
  };
  return [
    isPointed || isFocused,
    {
      onPointerEnter: ({ pointerType }) => setPointed(pointerType === 'mouse'),
      onPointerLeave: () => setPointed(false),
      onFocus: () => setFocused(true),
      onBlur: blur,
    },
  ];
}

/** What is shown of a list, and whether its order is another one by now. */
export interface Ordered<Entry> {
  readonly entries: readonly Entry[];
  readonly isOutdated: boolean;
}

/**
 * Return the entries in the order in which they were shown before, if the list is held: a row that moved away under the
 * pointer would have another one opened. New entries stand at the end, until the list is left or its order is asked for anew.
 */
export function useOrdered<Entry>(
  entries: readonly Entry[],
  idOf: (entry: Entry) => string,
  compare: (one: Entry, other: Entry) => number,
  isHeld: boolean,
): Ordered<Entry> {
  const sorted = entries.toSorted(compare);
  const before = useRef({ compare, ids: [] as readonly string[] });
  if (!isHeld || before.current.compare !== compare) {
    before.current = { compare, ids: sorted.map(idOf) };
    return { entries: sorted, isOutdated: false };
  }
  const places = new Map(before.current.ids.map((id, place) => [id, place]));
  const placeOf = (entry: Entry): number => places.get(idOf(entry)) ?? places.size;
  const held = sorted.toSorted((one, other) => placeOf(one) - placeOf(other));
  return { entries: held, isOutdated: held.some((entry, place) => entry !== sorted[place]) };
}
