/** Inputs with files: a form with a part for each file, and one, called `input`, for all else as JSON. */

import { isObject } from './json.ts';

/** Return the fields of an input that are files, or lists of them. */
export function filesIn(input: unknown): [name: string, files: Blob[]][] {
  if (!isObject(input)) return [];
  const fields = Object.entries(input).map(([name, value]): [string, unknown[]] => [name, [value].flat()]);
  return fields.filter((field): field is [string, Blob[]] => {
    const [, values] = field;
    return values.length > 0 && values.every((value) => value instanceof Blob);
  });
}

/** Return a form in the place of an input with files. */
export function formOf(input: unknown): unknown {
  const fields = filesIn(input);
  if (fields.length === 0) return input;
  const form = new FormData();
  const others = { ...(input as Record<string, unknown>) };
  for (const [name, files] of fields) {
    delete others[name];
    for (const file of files) form.append(name, file);
  }
  form.append('input', JSON.stringify(others));
  return form;
}
