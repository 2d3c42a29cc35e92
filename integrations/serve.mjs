// A folder over HTTP on the loopback interface.
import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize, sep } from 'node:path';

const types = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css', '.json': 'application/json', '.wasm': 'application/wasm', '.svg': 'image/svg+xml', '.png': 'image/png', '.woff2': 'font/woff2' };

/** Serves a folder; paths without an ending find their `.html`, and what is not there is its `404.html`. */
export async function serve(folder, base = '/') {
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, 'http://here').pathname)).replace(base, '/');
    const found = [path, `${path}.html`, join(path, 'index.html')].map((name) => join(folder, name)).find((file) => file.startsWith(join(folder, sep)) && existsSync(file) && statSync(file).isFile());
    const file = found ?? join(folder, '404.html');
    if (!existsSync(file)) return void response.writeHead(404).end();
    response.writeHead(found === undefined ? 404 : 200, { 'content-type': types[extname(file)] ?? 'application/octet-stream' });
    createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}${base}`, close: () => new Promise((resolve) => (server.closeAllConnections(), server.close(resolve))) };
}

/** A port that nobody listens on. */
export async function open() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}
