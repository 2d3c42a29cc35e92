/**
 * JSON with objects as `Map`s, in which a repeated key is an error: `JSON.parse` silently keeps the last, and gives
 * names like `__proto__` a meaning. Nesting is limited, numbers are JavaScript's.
 * @throws SyntaxError
 */
export function parseJson(text: string): unknown {
  let at = 0;
  const whitespace = /[ \t\n\r]*/y;
  const token = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y;
  const fail = (expected: string): never => {
    throw new SyntaxError(`expected ${expected} at position ${at} of the JSON`);
  };
  const skip = (): void => {
    whitespace.lastIndex = at;
    whitespace.exec(text);
    at = whitespace.lastIndex;
  };
  const string = (): string => {
    if (text[at] !== '"') fail('a string');
    let end = at + 1;
    while (end < text.length && text[end] !== '"') end += text[end] === '\\' ? 2 : 1;
    if (end >= text.length) fail('the end of a string');
    const value = JSON.parse(text.slice(at, end + 1)) as string;
    at = end + 1;
    return value;
  };
  const value = (depth: number): unknown => {
    if (depth > 16) fail('less nesting');
    skip();
    const first = text[at];
    if (first === '"') return string();
    if (first === '{') {
      const map = new Map<string, unknown>();
      list('}', () => {
        const key = string();
        if (map.has(key)) throw new SyntaxError(`the key ${JSON.stringify(key)} is there twice`);
        skip();
        if (text[at] !== ':') fail('a colon');
        at++;
        map.set(key, value(depth + 1));
      });
      return map;
    }
    if (first === '[') {
      const array: unknown[] = [];
      list(']', () => array.push(value(depth + 1)));
      return array;
    }
    token.lastIndex = at;
    const match = token.exec(text);
    if (match === null) return fail('a value');
    at = token.lastIndex;
    return JSON.parse(match[0]) as unknown;
  };
  const list = (end: string, item: () => void): void => {
    at++;
    skip();
    if (text[at] === end) {
      at++;
      return;
    }
    for (;;) {
      skip();
      item();
      skip();
      if (text[at] === end) {
        at++;
        return;
      }
      if (text[at] !== ',') fail(`a comma or ${end}`);
      at++;
    }
  };
  const result = value(0);
  skip();
  if (at !== text.length) fail('the end');
  return result;
}
