import { CheckpointError } from '@tinyfusion/core';

/** An object that a pickle makes by calling something: what, and with what. Nothing was called. */
export class PickledObject {
  constructor(
    /** Python's full name, `torch._utils._rebuild_tensor_v2`. */
    readonly type: string,
    readonly args: readonly unknown[],
  ) {}

  /** Entries that were set on it afterwards, where it is a dictionary. */
  readonly items = new Map<unknown, unknown>();
  /** Fields that were set on it afterwards. */
  state: unknown = undefined;
}

/** A name in a Python module, as a value. */
export class PickledGlobal {
  constructor(readonly name: string) {}
}

/** The bytes end before the pickle does. */
export class PickleEnd extends CheckpointError {}

/** The most objects, lists and dictionaries that one pickle makes: those of tens of thousands of tensors and their optimiser. An empty one takes a byte of the file and 200 of memory. */
const MOST_OBJECTS = 2 ** 21;

/** The most bytes or digits of an integer: it is read in a time that grows with their square. */
const LONGEST_INTEGER = 1024;

/** A value in a few words, for messages and names: whatever a pickle nests or repeats in it. */
export function shown(value: unknown): string {
  if (Array.isArray(value)) return `[${value.slice(0, 8).map((item: unknown) => (typeof item === 'object' && item !== null ? '…' : String(item))).join(', ')}${value.length > 8 ? ', …' : ''}]`;
  if (value instanceof PickledGlobal) return value.name;
  if (typeof value === 'object' && value !== null) return value instanceof PickledObject ? value.type : '…';
  return String(value);
}

/** What {@link unpickle} needs to know of the file around the pickle. */
export interface UnpickleOptions {
  /** Where the pickle comes from, for messages. */
  source: string;
  /** Python names that may be used; every other is refused. */
  allowed: ReadonlySet<string>;
  /** Turns a persistent id into a value. Default: refused. */
  persistent?: (id: unknown) => unknown;
}

/**
 * Reads one pickle (protocols 0 to 5, what checkpoints use of them) as data. It runs nothing: calls become
 * {@link PickledObject}s, and names that are not allowed end the reading. Dictionaries are `Map`s, tuples and lists are
 * arrays, integers beyond 2⁵³ are bigints.
 *
 * @returns the value, and where the pickle ends
 * @throws CheckpointError where a name is not allowed, or the pickle is damaged
 */
export function unpickle(bytes: Uint8Array, start: number, { source, allowed, persistent }: UnpickleOptions): { value: unknown; end: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = start;
  const fail = (what: string): never => {
    throw new CheckpointError(`${source}: the pickle is damaged at byte ${at}: ${what}`);
  };
  const skip = (length: number): number => {
    if (!(length >= 0)) fail(`a length of ${length}`);
    if (at + length > bytes.length) throw new PickleEnd(`${source}: the pickle is cut off at byte ${at}: ${length} bytes were expected, ${bytes.length - at} follow`);
    at += length;
    return at - length;
  };
  const text = (length: number): string => {
    const from = skip(length);
    return decoder.decode(bytes.subarray(from, from + length));
  };
  const line = (): string => {
    const end = bytes.indexOf(0x0a, at);
    if (end < 0) throw new PickleEnd(`${source}: the pickle is cut off at byte ${at}: a line has no end`);
    const value = text(end - at);
    at += 1;
    return value;
  };
  const long = (length: number): number | bigint => {
    if (length > LONGEST_INTEGER) fail(`an integer of ${length} bytes`);
    const from = skip(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[from + i]!);
    if (length > 0 && bytes[from + length - 1]! & 0x80) value -= 1n << BigInt(8 * length);
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  };
  const length64 = (): number => Number(view.getBigUint64(skip(8), true));
  const global = (module: string, name: string): PickledGlobal => {
    const full = `${module}.${name}`;
    if (!allowed.has(full)) {
      throw new CheckpointError(`${source} asks for ${full}, which no state dict needs; it was refused, and nothing was run. ${/^torch\.nn\.|^__main__|models/.test(full) ? 'The file holds a whole module: save model.state_dict() instead.' : 'Do not load this file with Python either, unless you trust where it comes from.'}`);
    }
    return new PickledGlobal(full);
  };

  let objects = 0;
  /** Counts an object that is made. */
  const made = <T>(object: T): T => {
    if (++objects > MOST_OBJECTS) throw new CheckpointError(`${source}: the pickle makes more than ${MOST_OBJECTS} objects, which no checkpoint needs`);
    return object;
  };
  const stack: unknown[] = [];
  const marks: number[] = [];
  const memo = new Map<number, unknown>();
  const pop = (): unknown => {
    if (stack.length <= (marks.at(-1) ?? 0)) fail('there is nothing on the stack');
    return stack.pop();
  };
  const popMark = (): unknown[] => stack.splice(marks.pop() ?? (fail('there is no mark') as never));
  const top = (): unknown => (stack.length === 0 ? fail('there is nothing on the stack') : stack.at(-1));
  const remember = (index: number): void => {
    if (memo.size >= 2 * MOST_OBJECTS) throw new CheckpointError(`${source}: the pickle remembers more than ${memo.size} values, which no checkpoint needs`);
    memo.set(index, top());
  };
  const recall = (index: number): unknown => (memo.has(index) ? memo.get(index) : fail(`nothing is remembered as ${index}`));
  const asList = (value: unknown): unknown[] => (Array.isArray(value) ? value : (fail('a list was expected') as never));
  const call = (callee: unknown, args: unknown): PickledObject => (callee instanceof PickledGlobal ? made(new PickledObject(callee.name, asList(args))) : (fail('something is called that has no name') as never));
  const setItems = (target: unknown, items: readonly unknown[]): void => {
    const map = target instanceof Map ? target : target instanceof PickledObject ? target.items : undefined;
    if (!(map instanceof Map) || items.length % 2 !== 0) fail('items are set on what is no dictionary');
    if (map!.size + items.length / 2 > 4 * MOST_OBJECTS) fail('a dictionary of more entries than any checkpoint has');
    for (let i = 0; i < items.length; i += 2) map!.set(items[i], items[i + 1]);
  };
  const append = (target: unknown, items: readonly unknown[]): void => {
    if (target instanceof Set) for (const item of items) target.add(item);
    else for (const item of items) asList(target).push(item);
  };

  for (;;) {
    const opcode = bytes[skip(1)]!;
    switch (opcode) {
      case 0x80: // PROTO
        if (bytes[skip(1)]! > 5) fail(`protocol ${bytes[at - 1]}, the newest known is 5`);
        break;
      case 0x95: // FRAME
        length64();
        break;
      case 0x28: // MARK
        marks.push(stack.length);
        break;
      case 0x2e: // STOP
        return { value: pop(), end: at };
      case 0x30: // POP
        if (stack.length === (marks.at(-1) ?? -1)) marks.pop();
        else pop();
        break;
      case 0x31: // POP_MARK
        popMark();
        break;
      case 0x32: // DUP
        stack.push(top());
        break;
      case 0x4e: // NONE
        stack.push(null);
        break;
      case 0x88: // NEWTRUE
        stack.push(true);
        break;
      case 0x89: // NEWFALSE
        stack.push(false);
        break;
      case 0x4a: // BININT
        stack.push(view.getInt32(skip(4), true));
        break;
      case 0x4b: // BININT1
        stack.push(bytes[skip(1)]);
        break;
      case 0x4d: // BININT2
        stack.push(view.getUint16(skip(2), true));
        break;
      case 0x8a: // LONG1
        stack.push(long(bytes[skip(1)]!));
        break;
      case 0x8b: // LONG4
        stack.push(long(view.getInt32(skip(4), true)));
        break;
      case 0x47: // BINFLOAT
        stack.push(view.getFloat64(skip(8), false));
        break;
      case 0x46: // FLOAT
        stack.push(Number(line()));
        break;
      case 0x49: {
        // INT, which also spells booleans
        const digits = line();
        stack.push(digits === '00' ? false : digits === '01' ? true : Number.isInteger(Number(digits)) ? Number(digits) : fail(`${digits} is no integer`));
        break;
      }
      case 0x4c: {
        // LONG
        const digits = line().replace(/L$/, '');
        if (digits.length > LONGEST_INTEGER) fail(`an integer of ${digits.length} digits`);
        if (!/^-?\d+$/.test(digits)) fail(`${digits} is no integer`);
        stack.push(Number.isSafeInteger(Number(digits)) ? Number(digits) : BigInt(digits));
        break;
      }
      case 0x8c: // SHORT_BINUNICODE
        stack.push(text(bytes[skip(1)]!));
        break;
      case 0x58: // BINUNICODE
        stack.push(text(view.getUint32(skip(4), true)));
        break;
      case 0x8d: // BINUNICODE8
        stack.push(text(length64()));
        break;
      case 0x56: // UNICODE
        stack.push(line());
        break;
      case 0x55: // SHORT_BINSTRING
        stack.push(text(bytes[skip(1)]!));
        break;
      case 0x54: // BINSTRING
        stack.push(text(view.getInt32(skip(4), true)));
        break;
      case 0x53: // STRING
        stack.push(line().replace(/^(['"])(.*)\1$/s, '$2'));
        break;
      case 0x43: {
        // SHORT_BINBYTES
        const length = bytes[skip(1)]!;
        const from = skip(length);
        stack.push(bytes.slice(from, from + length));
        break;
      }
      case 0x42: {
        // BINBYTES
        const length = view.getUint32(skip(4), true);
        const from = skip(length);
        stack.push(bytes.slice(from, from + length));
        break;
      }
      case 0x7d: // EMPTY_DICT
        stack.push(made(new Map()));
        break;
      case 0x5d: // EMPTY_LIST
      case 0x29: // EMPTY_TUPLE
        stack.push(made([]));
        break;
      case 0x8f: // EMPTY_SET
        stack.push(made(new Set()));
        break;
      case 0x64: {
        // DICT
        const map = made(new Map());
        setItems(map, popMark());
        stack.push(map);
        break;
      }
      case 0x6c: // LIST
      case 0x74: // TUPLE
        stack.push(made(popMark()));
        break;
      case 0x91: // FROZENSET
        stack.push(made(new Set(popMark())));
        break;
      case 0x85: // TUPLE1
        stack.push(made([pop()]));
        break;
      case 0x86: {
        // TUPLE2
        const b = pop();
        stack.push(made([pop(), b]));
        break;
      }
      case 0x87: {
        // TUPLE3
        const [c, b] = [pop(), pop()];
        stack.push(made([pop(), b, c]));
        break;
      }
      case 0x61: {
        // APPEND
        const item = pop();
        append(top(), [item]);
        break;
      }
      case 0x65: // APPENDS
      case 0x90: {
        // ADDITEMS
        const items = popMark();
        append(top(), items);
        break;
      }
      case 0x73: {
        // SETITEM
        const [value, key] = [pop(), pop()];
        setItems(top(), [key, value]);
        break;
      }
      case 0x75: {
        // SETITEMS
        const items = popMark();
        setItems(top(), items);
        break;
      }
      case 0x71: // BINPUT
        remember(bytes[skip(1)]!);
        break;
      case 0x72: // LONG_BINPUT
        remember(view.getUint32(skip(4), true));
        break;
      case 0x70: // PUT
        remember(Number(line()));
        break;
      case 0x94: // MEMOIZE
        remember(memo.size);
        break;
      case 0x68: // BINGET
        stack.push(recall(bytes[skip(1)]!));
        break;
      case 0x6a: // LONG_BINGET
        stack.push(recall(view.getUint32(skip(4), true)));
        break;
      case 0x67: // GET
        stack.push(recall(Number(line())));
        break;
      case 0x63: {
        // GLOBAL
        const module = line();
        stack.push(global(module, line()));
        break;
      }
      case 0x93: {
        // STACK_GLOBAL
        const [name, module] = [pop(), pop()];
        stack.push(global(shown(module), shown(name)));
        break;
      }
      case 0x52: // REDUCE
      case 0x81: {
        // NEWOBJ
        const args = pop();
        stack.push(call(pop(), args));
        break;
      }
      case 0x62: {
        // BUILD
        const state = pop();
        const target = top();
        if (!(target instanceof PickledObject)) fail('state is set on what is no object');
        (target as PickledObject).state = state;
        break;
      }
      case 0x51: // BINPERSID
      case 0x50: {
        // PERSID
        const id = opcode === 0x51 ? pop() : line();
        stack.push(persistent === undefined ? fail('a persistent id, which this file cannot have') : persistent(id));
        break;
      }
      default:
        fail(`opcode 0x${opcode.toString(16)} is not known`);
    }
  }
}

const decoder = new TextDecoder('utf-8');
