import { expect, it } from 'vitest';
import { printable } from '../src/index.js';

it('text of a file cannot move the cursor, hide or forge what is printed', () => {
  expect(printable('blocks.0.weight, größe 重み 🙂')).toBe('blocks.0.weight, größe 重み 🙂');
  expect(printable('a\u001b[2K\r\nerror: b\u009b1A\u202e')).toBe('a\\u001b[2K\\u000d\\u000aerror: b\\u009b1A\\u202e');
});
