// Builds the site: TypeDoc's pages, the Studio as a part of it, and all of it by VitePress; then looks whether it holds together.
//   node scripts/site.mjs          DOCS_BASE=/path/ where it does not lie at its host's root
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join, posix } from 'node:path';

const root = new URL('..', import.meta.url).pathname;
const base = process.env.DOCS_BASE ?? '/';
if (!/^\/(.*\/)?$/.test(base)) stop(`DOCS_BASE is ${JSON.stringify(base)}, expected a path with slashes around it, such as /tinyfusion/`);
const site = join(root, 'docs/.vitepress/dist');

execFileSync(process.execPath, [join(root, 'scripts/tables.mjs')], { stdio: 'inherit' });
run('typedoc', []);
// relative addresses inside, so the page may lie anywhere
rmSync(join(root, 'docs/public/studio'), { recursive: true, force: true });
run('vite', ['build', 'examples/studio', '--outDir', join(root, 'docs/public/studio'), '--emptyOutDir', '--logLevel', 'warn'], { VITE_SITE: '../guide/path.html' });
run('vitepress', ['build', 'docs']);

const pages = readdirSync(site, { recursive: true }).filter((path) => path.endsWith('.html'));
const dead = pages.flatMap(deadLinks);
for (const link of dead) console.error(link);
if (dead.length > 0) stop(`${dead.length} dead links`);
console.log(`${pages.length} pages, no dead link`);

/** What a page refers to on this site and is not there, anchors included. */
function deadLinks(page) {
  const html = readFileSync(join(site, page), 'utf8');
  const own = posix.join(base, page.replaceAll('\\', '/'));
  return Array.from(html.matchAll(/<(?:a|img|link|script|iframe)\b[^>]*?\s(?:href|src)="([^"]+)"/g), ([, to]) => to.replaceAll('&amp;', '&')).flatMap((to) => {
    if (/^(https?:|mailto:|data:|blob:)/.test(to)) return [];
    const { pathname, hash } = new URL(to, `http://site${own}`);
    if (!pathname.startsWith(base)) return [`${page}: ${to} leads out of ${base}`];
    let file = join(site, decodeURIComponent(pathname.slice(base.length)));
    if (file.endsWith('/')) file += 'index.html';
    if (!existsSync(file)) return existsSync(`${file}.html`) ? [] : [`${page}: ${to} is not there`];
    const id = decodeURIComponent(hash.slice(1));
    if (id === '' || !file.endsWith('.html')) return [];
    const target = readFileSync(file, 'utf8');
    return target.includes(`id="${id}"`) || target.includes(`name="${id}"`) ? [] : [`${page}: ${to} has no such part`];
  });
}

function run(tool, args, env = {}) {
  try {
    execFileSync(join(root, 'node_modules/.bin', tool), args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
  } catch {
    stop(`${tool} failed`);
  }
}

function stop(message) {
  console.error(message);
  process.exit(1);
}
