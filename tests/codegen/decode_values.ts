/** Reads values as the generated client does: prints each as an expression, and the JSON that it is sent back as. */

import { readFileSync } from 'node:fs';

interface Sent {
  readonly cell: string;
  readonly text: string;
}
interface Codec {
  decode(json: unknown): unknown;
  encode(value: unknown): unknown;
  parse?(text: string): unknown;
}

const [folder, samples] = process.argv.slice(2) as [string, string];
const { codecs } = (await import(`${folder}/codecs.ts`)) as {
  codecs: Readonly<Record<string, { readonly input?: Codec; readonly output?: Codec } | undefined>>;
};

function expressionOf(value: unknown): string {
  if (value instanceof Date) return `new Date(${value.getTime()})`;
  if (typeof value === 'bigint') return `${value}n`;
  if (value instanceof Uint8Array) return `new Uint8Array(${JSON.stringify([...value])})`;
  if (value instanceof Set) return `new Set([${[...value].map(expressionOf)}])`;
  if (value instanceof Map)
    return `new Map([${[...value].map(([key, one]) => `[${expressionOf(key)}, ${expressionOf(one)}]`)}])`;
  if (Array.isArray(value)) return `[${value.map(expressionOf)}]`;
  if (typeof value === 'object' && value !== null)
    return `{ ${Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${expressionOf(one)}`)} }`;
  return JSON.stringify(value);
}

/** Return the JSON that is sent; null if the value is refused, as it would arrive as another. */
function sent(json: unknown): unknown {
  try {
    return JSON.parse(JSON.stringify(json));
  } catch {
    return null;
  }
}

for (const { cell, text } of JSON.parse(readFileSync(samples, 'utf8')) as Sent[]) {
  const output = codecs[`cell.giv_${cell}`]?.output;
  const json = output?.parse ? output.parse(text) : JSON.parse(text);
  const value = output ? output.decode(json) : json;
  const input = codecs[`cell.tak_${cell}`]?.input;
  console.log(JSON.stringify({ expression: expressionOf(value), back: sent(input?.encode({ value }) ?? { value }) }));
}
