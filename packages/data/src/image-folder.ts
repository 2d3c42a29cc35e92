import { DataError, throwIfCancelled } from '@tinyfusion/core';
import { readdir } from 'node:fs/promises';
import { join, sep } from 'node:path';
import type { ByteImage } from './resample.js';

/** Images on disk, in the order of their paths. */
export interface ImageFolder {
  root: string;
  /** Below `root`. */
  paths: string[];
  /** Names of the folders in `root`, in order: the classes, as torchvision's `ImageFolder` numbers them. Empty where images lie in `root`. */
  classNames: string[];
  /** Class of each image; 0 without classes. */
  labels: Int32Array;
}

const endings = ['png', 'jpg', 'jpeg', 'webp', 'tif', 'tiff', 'gif', 'avif', 'bmp', 'ppm'];
const readable = new RegExp(`\\.(${endings.join('|')})$`, 'i');

/**
 * Lists the images below a folder.
 * @throws DataError where it cannot be read, or has no images
 */
export async function openImageFolder(root: string): Promise<ImageFolder> {
  let names: string[];
  try {
    names = (await readdir(root, { recursive: true, withFileTypes: true })).filter((f) => f.isFile() && readable.test(f.name)).map((f) => join(f.parentPath, f.name).slice(join(root, sep).length));
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'there is no such folder' : code === 'ENOTDIR' ? 'it is a file' : code === 'EACCES' ? 'permission denied' : (code ?? String(cause));
    throw new DataError(`the folder ${root} cannot be read: ${why}`, { cause });
  }
  if (names.length === 0) throw new DataError(`${root} has no images; expected files that end in ${endings.map((ending) => `.${ending}`).join(', ')}, in it or in a folder for each class`);
  const paths = names.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  const folders = paths.map((path) => (path.includes(sep) ? path.slice(0, path.indexOf(sep)) : ''));
  const classNames = [...new Set(folders)].filter((name) => name !== '');
  if (classNames.length > 0 && folders.includes('')) throw new DataError(`${root} has images beside its folders of classes (${paths[folders.indexOf('')]}); put every image into the folder of its class, or all into ${root}`);
  return { root, paths, classNames, labels: Int32Array.from(folders, (name) => Math.max(0, classNames.indexOf(name))) };
}

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
 * transparency and colour profiles are dropped, nothing is turned by EXIF.
 *
 * @yields images in the folder's order
 * @throws DataError for the first broken file, by name, unless `onBroken` is given; and where `sharp` is missing
 */
export async function* readImages({ root, paths, labels }: ImageFolder, { ahead = 8, onBroken, from = 0, signal }: ReadImagesOptions = {}): AsyncGenerator<FolderImage, void, void> {
  const { default: sharp } = await import('sharp').catch((cause: unknown) => {
    throw new DataError('images are decoded by sharp, which is not installed; npm install sharp', { cause });
  });
  const decode = async (i: number): Promise<FolderImage | Error> => {
    try {
      const file = sharp(join(root, paths[i]!), { failOn: 'error', limitInputPixels: 2 ** 28 });
      const { format } = await file.metadata();
      const { data, info } = await file.removeAlpha().toColourspace('srgb').raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
      const pixels = info.channels === 3 ? new Uint8Array(data.buffer, data.byteOffset, data.length) : tripled(data, info.channels);
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
