import { type LongTaskOptions, BackendError } from '@tinyfusion/core';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { liveHtml, pageHtml } from './page.js';
import { RunView, isSample } from './run-view.js';

/** Options of {@link watchRun}. */
export interface WatchRunOptions extends Pick<LongTaskOptions, 'signal'> {
  /** Port on 127.0.0.1. Default 0: any that is free. */
  port?: number;
  /** Milliseconds without a request after which it ends. Default 10 minutes. */
  idle?: number;
  /** Called when the page can be opened. */
  onReady?: (url: string) => void;
}

/** Milliseconds that a timer can wait; with more it would not wait at all. */
const LONGEST = 2 ** 31 - 1;

/**
 * Serves a page that shows a run while it goes on, to this machine alone, until nobody looks any more.
 * @throws CheckpointError where the folder holds no run; BackendError where the port is taken
 */
export async function watchRun(path: string, { port = 0, idle = 600_000, signal, onReady }: WatchRunOptions = {}): Promise<void> {
  const view = await RunView.open(path);
  const server = createServer((request, response) => {
    idleTimer.refresh();
    answer(view, request, response).catch((error: unknown) => {
      if (!response.headersSent) response.writeHead(500, plain);
      response.end(error instanceof Error ? error.message : String(error));
    });
  });
  const close = (): void => {
    server.close();
    server.closeAllConnections();
  };
  const idleTimer = setTimeout(close, Math.min(idle, LONGEST));
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) => reject(new BackendError(`the page cannot be served on port ${port}: ${cause.code === 'EADDRINUSE' ? 'another program has it; leave --port out, or name another' : cause.message}`, { cause })));
      server.listen(port, '127.0.0.1', resolve);
    });
    const ended = new Promise<void>((resolve) => server.once('close', resolve));
    onReady?.(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    if (signal?.aborted === true) close();
    signal?.addEventListener('abort', close, { once: true });
    await ended;
  } finally {
    clearTimeout(idleTimer);
    signal?.removeEventListener('abort', close);
  }
}

const plain = { 'content-type': 'text/plain; charset=utf-8', 'x-content-type-options': 'nosniff' };

async function answer(view: RunView, { url = '/', method, headers }: IncomingMessage, response: ServerResponse): Promise<void> {
  // a page elsewhere whose name leads here must not read it
  if (!/^(127\.0\.0\.1|localhost)(:\d+)?$/.test(headers.host ?? '')) return void response.writeHead(403, plain).end('this page is for 127.0.0.1 alone');
  if (method !== 'GET') return void response.writeHead(405, plain).end('GET alone');
  const name = url.replace(/\?.*$/, '').slice(1);
  if (isSample(name)) {
    const png = await readFile(join(view.path, name)).catch(() => undefined);
    return void (png === undefined ? response.writeHead(404, plain).end('there is no such picture') : response.writeHead(200, { 'content-type': 'image/png', 'x-content-type-options': 'nosniff' }).end(png));
  }
  if (name === 'favicon.ico') return void response.writeHead(204).end();
  if (name !== '' && name !== 'live') return void response.writeHead(404, plain).end('there is no such page');
  const state = await view.state();
  const live = liveHtml(state);
  const nonce = randomBytes(16).toString('base64');
  const html = name === 'live' ? live : pageHtml(state, live, nonce);
  response.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store', 'content-security-policy': `default-src 'none'; img-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'nonce-${nonce}'`, 'x-content-type-options': 'nosniff' }).end(html);
}
