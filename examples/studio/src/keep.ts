/**
 * What outlives the page, in IndexedDB: settings and plots by the page, models and runs by the worker. Where the browser
 * gives no storage (some private windows) nothing is kept, and everything else works.
 */

const open = (): Promise<IDBDatabase> =>
  new Promise((resolve, reject) => {
    const request = indexedDB.open('tinyfusion-studio', 1);
    request.addEventListener('upgradeneeded', () => request.result.createObjectStore('kept'));
    request.addEventListener('success', () => resolve(request.result));
    request.addEventListener('error', () => reject(request.error));
  });

let database: Promise<IDBDatabase> | undefined;

async function using<T>(mode: IDBTransactionMode, act: (store: IDBObjectStore) => IDBRequest<T>): Promise<T | undefined> {
  try {
    database ??= open();
    const store = (await database).transaction('kept', mode).objectStore('kept');
    return await new Promise<T>((resolve, reject) => {
      const request = act(store);
      request.addEventListener('success', () => resolve(request.result));
      request.addEventListener('error', () => reject(request.error));
    });
  } catch {
    return undefined;
  }
}

/** What was kept under a name, or nothing. */
export const recall = <T>(name: string): Promise<T | undefined> => using('readonly', (store) => store.get(name) as IDBRequest<T>);

/** Keeps a value that can be cloned. */
export const keep = async (name: string, value: unknown): Promise<void> => void (await using('readwrite', (store) => store.put(value, name)));

export const forget = async (name: string): Promise<void> => void (await using('readwrite', (store) => store.delete(name)));
