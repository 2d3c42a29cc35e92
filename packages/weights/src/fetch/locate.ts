import type * as Hub from '@huggingface/hub';
import { ArgumentError, CheckpointError } from '@tinyfusion/core';
import { knownCheckpoints } from './known-checkpoints.js';

/** A file that can be fetched. */
export interface Location {
  /** Where it lies; the hub's address is found when it is fetched. */
  from: string;
  /** What it is called in the cache. */
  file: string;
  size?: number | undefined;
  sha256?: string | undefined;
  sha256Prefix?: string | undefined;
}

/**
 * Where something lies.
 *
 * @param what a name of {@link knownCheckpoints} or its file's name, a URL, or `hf://owner/repository[@revision]/path`
 * @throws ArgumentError where it is none of these, with the known names
 */
export function locate(what: string): Location {
  const known = Object.hasOwn(knownCheckpoints, what) ? knownCheckpoints[what] : Object.values(knownCheckpoints).find(({ file }) => file === what);
  if (known !== undefined) return known;
  if (/^https?:\/\//.test(what)) return { from: what, file: `${fingerprint(what)}-${lastPart(new URL(what).pathname)}` };
  const hub = hubFile(what);
  if (hub !== undefined) return { from: what, file: `${hub.repository.replace('/', '--')}-${fingerprint(what)}-${lastPart(hub.path)}` };
  throw new ArgumentError('checkpoint', what, `a file, a URL, hf://owner/repository/path, or one of ${Object.keys(knownCheckpoints).join(', ')}`);
}

/** Whether `fetchFile` knows where it lies: a known name, a URL, or a file of the hub. */
export function isLocatable(what: string): boolean {
  return Object.hasOwn(knownCheckpoints, what) || Object.values(knownCheckpoints).some(({ file }) => file === what) || /^(https?|hf):\/\//.test(what);
}

function hubFile(what: string): { repository: string; revision?: string; path: string } | undefined {
  const match = /^hf:\/\/([^/@]+\/[^/@]+)(?:@([^/]+))?\/(.+)$/.exec(what);
  if (match === null) return undefined;
  const [, repository, revision, path] = match as unknown as [string, string, string | undefined, string];
  return { repository, path, ...(revision === undefined ? {} : { revision }) };
}

/** Options that concern the hub. */
export interface HubOptions {
  /** For models that are not public. */
  hubToken?: string | undefined;
  /** Default: the Hugging Face hub. */
  hubUrl?: string | undefined;
}

/** What the hub says of a file. */
interface HubAnswer {
  url: string;
  size?: number | undefined;
  etag?: string | undefined;
}

/**
 * The address to fetch from, and what to send with it. For files of the hub it tells the size, and of large files the hash: in Node through its
 * client (`@huggingface/hub`), in a browser by the same request, as the client cannot be bundled.
 * @throws CheckpointError where the hub has no such file, or does not answer
 */
export async function addressOf(location: Location, options: HubOptions = {}): Promise<Location & { url: string; headers: Record<string, string> }> {
  const hub = hubFile(location.from);
  if (hub === undefined) return { ...location, url: location.from, headers: {} };
  const { repository, path, revision } = hub;
  const found = await (isNode ? askThroughClient : ask)(hub, options).catch((cause: unknown) => {
    const status = (cause as { statusCode?: number }).statusCode;
    if (status === 401 || status === 403) throw new CheckpointError(`the hub gives ${location.from} only to those it knows (status ${status}); accept its terms there and pass a token`, { cause });
    if (status === 404) return null;
    throw status === undefined ? cause : new CheckpointError(`the hub answered ${status} about ${location.from}; try again later`, { cause });
  });
  if (found === null) throw new CheckpointError(`the hub has no ${path} in ${repository}${revision === undefined ? '' : ` at ${revision}`}`);
  const sha256 = /^"?([0-9a-f]{64})"?$/.exec(found.etag ?? '')?.[1];
  // the token is for the hub alone; what it redirects to says itself who may read
  const headers = new URL(found.url).origin === new URL(options.hubUrl ?? HUB).origin ? authorization(options.hubToken) : {};
  return { ...location, url: found.url, headers, size: location.size ?? found.size, sha256: location.sha256 ?? sha256 };
}

const HUB = 'https://huggingface.co';

const authorization = (token: string | undefined): Record<string, string> => (token === undefined || token === '' ? {} : { Authorization: `Bearer ${token}` });

type HubFile = NonNullable<ReturnType<typeof hubFile>>;

const isNode = typeof process !== 'undefined' && process.versions?.node !== undefined && typeof document === 'undefined';

async function askThroughClient({ repository: repo, path, revision }: HubFile, { hubToken, hubUrl }: HubOptions): Promise<HubAnswer | null> {
  // a name that bundlers do not follow
  const client = '@huggingface/hub';
  const { fileDownloadInfo } = (await import(/* @vite-ignore */ /* webpackIgnore: true */ client)) as typeof Hub;
  return fileDownloadInfo({ repo, path, ...(revision === undefined ? {} : { revision }), ...(hubUrl === undefined ? {} : { hubUrl }), ...(hubToken === undefined ? {} : { accessToken: hubToken }) });
}

/** Asks the hub to answer about a file itself, in place of a redirect to where its bytes lie. */
const ABOUT_FILE = 'application/vnd.xet-fileinfo+json, */*';

/** What the client asks, for browsers. @internal */
export async function ask({ repository, path, revision }: HubFile, { hubToken, hubUrl = HUB }: HubOptions): Promise<HubAnswer> {
  const url = `${hubUrl}/${repository}/resolve/${encodeURIComponent(revision ?? 'main')}/${path.split('/').map(encodeURIComponent).join('/')}`;
  const answer = await fetch(url, { headers: { Range: 'bytes=0-0', Accept: ABOUT_FILE, ...authorization(hubToken) } });
  await answer.body?.cancel();
  const { status, headers } = answer;
  if (!answer.ok) throw Object.assign(new Error(`status ${status}`), { statusCode: status });
  const size = Number(headers.get('X-Linked-Size') ?? /\/(\d+)$/.exec(headers.get('Content-Range') ?? '')?.[1] ?? Number.NaN);
  return { url, size: Number.isSafeInteger(size) ? size : undefined, etag: headers.get('X-Linked-ETag') ?? headers.get('ETag') ?? undefined };
}

function lastPart(path: string): string {
  return (path.split('/').at(-1) ?? '').replace(/[^\w.-]/g, '_').slice(-80) || 'file';
}

/** A short name for a long one (FNV-1a), so that files of the same name from two places are two files. */
function fingerprint(text: string): string {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, '0');
}
