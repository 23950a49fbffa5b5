/** Which words of one text another one has not: by their longest common subsequence. */

/** A piece of a text; `isOwn` if the other text has it not in this place. */
export interface Piece {
  /** Where it begins in the text. */
  readonly at: number;
  readonly text: string;
  readonly isOwn: boolean;
}

/** Texts of more words are not compared, as that takes as much time as the product of their lengths. */
const MOST = 400;

export function compared(text: string, other: string): readonly Piece[] {
  const [mine, theirs] = [wordsOf(text), wordsOf(other)];
  if (mine.length > MOST || theirs.length > MOST) return [{ at: 0, text, isOwn: false }];
  const lengths = commonLengths(mine, theirs);
  const pieces: Piece[] = [];
  let at = 0;
  let begin = 0;
  mine.forEach((word, place) => {
    const found = theirs.findIndex((one, index) => index >= at && one === word && isOnPath(lengths, place, index, at));
    if (found >= 0) at = found + 1;
    pieces.push({ at: begin, text: word, isOwn: found < 0 && word.trim() !== '' });
    begin += word.length;
  });
  return pieces;
}

/** Return, for each pair of places, how long the longest common subsequence from there on is. */
function commonLengths(mine: readonly string[], theirs: readonly string[]): readonly (readonly number[])[] {
  const lengths = Array.from({ length: mine.length + 1 }, () => new Array<number>(theirs.length + 1).fill(0));
  for (let i = mine.length - 1; i >= 0; i -= 1) {
    for (let j = theirs.length - 1; j >= 0; j -= 1) {
      const [row, next] = [lengths[i] ?? [], lengths[i + 1] ?? []];
      row[j] = mine[i] === theirs[j] ? 1 + (next[j + 1] ?? 0) : Math.max(next[j] ?? 0, row[j + 1] ?? 0);
    }
  }
  return lengths;
}

/** Tell whether a longest subsequence from (i, at) on may take the pair (i, j). */
function isOnPath(lengths: readonly (readonly number[])[], i: number, j: number, at: number): boolean {
  return 1 + (lengths[i + 1]?.[j + 1] ?? 0) === (lengths[i]?.[at] ?? 0);
}

function wordsOf(text: string): string[] {
  return text.split(/(\s+)/).filter((word) => word !== '');
}
