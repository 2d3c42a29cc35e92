import { DataError } from '@tinyfusion/core';
import { openImageFolder, readImages } from '@tinyfusion/data/node';
import type { ImageSource } from './image-source.js';

/** Options of {@link folderSource}. */
export interface FolderSourceOptions {
  /** Whether files that cannot be decoded are left out, and counted in the warnings. Default `false`: an error names the first. */
  skipBroken?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * The images in and below a folder, in the order of their paths, decoded ahead of their use.
 * @throws DataError where there are none; while they are read, where one is broken or of another size
 */
export async function folderSource(path: string, { skipBroken = false, signal }: FolderSourceOptions = {}): Promise<ImageSource> {
  const folder = await openImageFolder(path);
  const warnings: string[] = [];
  const broken: string[] = [];
  const options = { signal, ...(skipBroken ? { onBroken: (name: string) => void broken.push(name) } : {}) };
  const first = (await readImages(folder, { ...options, ahead: 0 }).next()).value;
  if (first === undefined) throw new DataError(`none of the ${folder.paths.length} images in ${path} can be decoded`);
  const { height, width } = first;

  async function* batches(most: number): AsyncGenerator<Uint8Array> {
    broken.length = 0;
    const formats = new Set<string>();
    const size = height * width * 3;
    let group = new Uint8Array(most * size);
    let filled = 0;
    for await (const image of readImages(folder, options)) {
      if (image.height !== height || image.width !== width) throw new DataError(`${path}: ${image.path} is ${image.width} × ${image.height}, ${first!.path} is ${width} × ${height}; bring all images to one size first, as resizing changes every number`);
      formats.add(image.format);
      group.set(image.pixels, filled * size);
      if (++filled === most) {
        yield group;
        group = new Uint8Array(most * size);
        filled = 0;
      }
    }
    if (filled > 0) yield group.subarray(0, filled * size);
    warnings.length = 0;
    for (const lossy of ['jpeg', 'webp', 'heif']) if (formats.has(lossy)) warnings.push(`${path} has ${lossy} images: what its compression loses is measured too; store samples as PNG`);
    if (broken.length > 0) warnings.push(`${path}: ${broken.length} of ${folder.paths.length} images cannot be decoded and are left out: ${broken.slice(0, 3).join(', ')}${broken.length > 3 ? ' …' : ''}`);
  }
  return { name: path, count: folder.paths.length, height, width, batches, warnings };
}
