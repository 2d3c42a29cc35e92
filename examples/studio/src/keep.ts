/**
 * What outlives the page, in IndexedDB: settings and plots by the page, models and runs by the worker. What the browser does
 * not store (some private windows, a full disk) is held as long as the page is there, and everything else works.
 */

const open = (): Promise<IDBDatabase> =>
  new Promise((resolve, reject) => {
    const request = indexedDB.open('tinyfusion-studio', 1);
    request.addEventListener('upgradeneeded', () => request.result.createObjectStore('kept'));
    request.addEventListener('success', () => resolve(request.result));
    request.addEventListener('error', () => reject(request.error));
  });

let database: Promise<IDBDatabase> | undefined;

/** What was not stored. */
const held = new Map<string, unknown>();

async function using<T>(mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  database ??= open();
  const transaction = (await database).transaction('kept', mode);
  const request = act(transaction.objectStore('kept'));
  return new Promise((resolve, reject) => {
    // not before the end: that is where a full disk shows
    transaction.addEventListener('complete', () => resolve(request.result));
    transaction.addEventListener('abort', () => reject(transaction.error));
  });
}

/** What was kept under a name, or nothing. */
export async function recall<T>(name: string): Promise<T | undefined> {
  if (held.has(name)) return held.get(name) as T;
  return using('readonly', (store) => store.get(name) as IDBRequest<T>).catch(() => undefined);
}

/** Keeps a value that can be cloned. */
export async function keep(name: string, value: unknown): Promise<void> {
  try {
    await using('readwrite', (store) => store.put(value, name));
    held.delete(name);
  } catch {
    held.set(name, value);
  }
}

export async function forget(name: string): Promise<void> {
  held.delete(name);
  await using('readwrite', (store) => store.delete(name)).catch(() => undefined);
}
