import { ArgumentError, DataError, throwIfCancelled } from '@tinyfusion/core';
import type { Stats } from 'node:fs';
import { readdir, realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { ByteImage } from './resample.js';

/** Images on disk, class by class in the order of their paths. */
export interface ImageFolder {
  root: string;
  /** Below `root`, with `/` between folders on every system. */
  paths: string[];
  /** Names of the folders in `root` that have images, sorted: the classes, as torchvision's `ImageFolder` numbers them. Empty where images lie in `root`. */
  classNames: string[];
  /** Class of each image; 0 without classes. */
  labels: Int32Array;
}

/** What sharp's builds read. */
const endings = ['png', 'jpg', 'jpeg', 'webp', 'tif', 'tiff', 'gif', 'avif'];
const readable = new RegExp(`\\.(${endings.join('|')})$`, 'i');

/**
 * Lists the images below a folder. Links are followed, as torchvision does, but not to a folder that they lie in. A link to
 * nothing with the name of an image is listed, and is a broken file when it is read.
 * @throws DataError where it cannot be read, has no images, or has another link to nothing, which may have been a class
 */
export async function openImageFolder(root: string): Promise<ImageFolder> {
  // classes in the order of their names, in which a blank or a hyphen comes before `/`
  const paths = (await imagesBelow(root)).map((path) => path.replace('/', '\0')).toSorted(byCodeUnits).map((path) => path.replace('\0', '/'));
  if (paths.length === 0) throw new DataError(`${root} has no images; expected files that end in ${endings.map((ending) => `.${ending}`).join(', ')}, in it or in a folder for each class`);
  const folders = paths.map((path) => path.slice(0, Math.max(0, path.indexOf('/'))));
  const classNames = [...new Set(folders)].filter((name) => name !== '');
  if (classNames.length > 0 && folders.includes('')) throw new DataError(`${root} has images beside its folders of classes (${paths[folders.indexOf('')]}); put every image into the folder of its class, or all into ${root}`);
  const numbers = new Map(classNames.map((name, i) => [name, i]));
  return { root, paths, classNames, labels: Int32Array.from(folders, (name) => numbers.get(name) ?? 0) };
}

const byCodeUnits = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** Paths of images below a folder, in no order. @param above where the folders that it lies in really are */
async function imagesBelow(folder: string, below = '', above: readonly string[] = []): Promise<string[]> {
  try {
    const real = await realpath(folder);
    if (above.includes(real)) return [];
    const entries = await readdir(folder, { withFileTypes: true });
    const found = await Promise.all(
      entries.map(async (entry) => {
        const path = join(folder, entry.name);
        const kind = entry.isSymbolicLink() ? await linked(path) : entry;
        if (kind?.isDirectory() === true) return imagesBelow(path, `${below}${entry.name}/`, [...above, real]);
        const image = readable.test(entry.name);
        if (kind === undefined && !image) throw new DataError(`${path} is a link to nothing; bring back what it points to, or remove it`);
        return image && kind?.isFile() !== false ? [`${below}${entry.name}`] : [];
      }),
    );
    return found.flat();
  } catch (cause) {
    if (cause instanceof DataError) throw cause;
    const { code } = cause as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'there is no such folder' : code === 'ENOTDIR' ? 'it is a file' : code === 'EACCES' ? 'permission denied' : (code ?? String(cause));
    throw new DataError(`the folder ${folder} cannot be read: ${why}`, { cause });
  }
}

/** What a link points to; `undefined` where that is nothing, or itself. */
const linked = (path: string): Promise<Stats | undefined> =>
  stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ELOOP') return undefined;
    throw error;
  });

/** An image with its place. */
export interface FolderImage extends ByteImage {
  path: string;
  label: number;
  /** What `sharp` says its file is, e.g. `'jpeg'`. */
  format: string;
}

/** Options of {@link readImages}. */
export interface ReadImagesOptions {
  /** Images decoded ahead of the one in use. Default 8. */
  ahead?: number;
  /** Takes broken files instead of an error, e.g. to count them. */
  onBroken?: (path: string, reason: string) => void;
  /** The first image. Default 0. */
  from?: number;
  signal?: AbortSignal | undefined;
}

/**
 * Decodes images with `sharp` (an optional peer: `npm install sharp`) to red, green and blue, as PIL's `convert('RGB')`:
 * transparency and colour profiles are dropped, CMYK is converted by its formula, nothing is turned by EXIF. Unlike PIL's, grey
 * of 16 bits is scaled to 8, not clipped.
 *
 * @yields images in the folder's order
 * @throws DataError for the first broken file, by name, unless `onBroken` is given; and where `sharp` is missing; ArgumentError
 * where `ahead` or `from` is no count
 */
export async function* readImages({ root, paths, labels }: ImageFolder, { ahead = 8, onBroken, from = 0, signal }: ReadImagesOptions = {}): AsyncGenerator<FolderImage, void, void> {
  for (const [name, value] of Object.entries({ ahead, from })) if (!Number.isInteger(value) || value < 0) throw new ArgumentError(`ReadImagesOptions.${name}`, value, 'an integer of 0 or more');
  const { default: sharp } = await import('sharp').catch((cause: unknown) => {
    throw new DataError('images are decoded by sharp, which is not installed; npm install sharp', { cause });
  });
  const decode = async (i: number): Promise<FolderImage | Error> => {
    try {
      const file = sharp(join(root, paths[i]!), { failOn: 'error', limitInputPixels: 2 ** 28, ignoreIcc: true });
      const { format, space, depth } = await file.metadata();
      const cmyk = space === 'cmyk' && depth === 'uchar';
      const { data, info } = await (cmyk ? file.pipelineColourspace('cmyk').toColourspace('cmyk') : file.toColourspace('srgb')).removeAlpha().raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
      const pixels = cmyk ? rgbOfCmyk(data) : info.channels === 3 ? new Uint8Array(data.buffer, data.byteOffset, data.length) : tripled(data, info.channels);
      return { path: paths[i]!, label: labels[i]!, width: info.width, height: info.height, channels: 3, pixels, format };
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  };
  const waiting: Promise<FolderImage | Error>[] = [];
  for (let i = from, next = from; i < paths.length; i++) {
    for (; next < paths.length && next <= i + ahead; next++) waiting.push(decode(next));
    const image = await waiting.shift()!;
    throwIfCancelled(signal, 'reading images');
    if (!(image instanceof Error)) yield image;
    else if (onBroken !== undefined) onBroken(paths[i]!, reasonOf(image));
    else throw new DataError(`${join(root, paths[i]!)} cannot be decoded: ${reasonOf(image)}. Remove it, or leave broken files out with --skip-broken (in code: onBroken).`, { cause: image });
  }
}

const reasonOf = (error: Error): string => error.message.split('\n')[0]!;

/** Grey as red, green and blue. */
function tripled(data: Uint8Array, channels: number): Uint8Array {
  const out = new Uint8Array((3 * data.length) / channels);
  for (let i = 0; i < out.length; i++) out[i] = data[Math.floor(i / 3) * channels]!;
  return out;
}

/** CMYK as red, green and blue by PIL's formula, (1 − ink) · (1 − black), rounded as there. */
function rgbOfCmyk(data: Uint8Array): Uint8Array {
  const out = new Uint8Array((3 * data.length) / 4);
  for (let i = 0; i < out.length; i++) {
    const pixel = 4 * Math.floor(i / 3);
    const white = 255 - data[pixel + 3]!;
    const product = data[pixel + (i % 3)]! * white + 128;
    out[i] = Math.max(0, white - (((product >> 8) + product) >> 8));
  }
  return out;
}
