import { mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { DataError } from '@tinyfusion/core';
import { type FolderImage, openImageFolder, readImages } from '@tinyfusion/data/node';
import sharp from 'sharp';
import { afterEach, describe, expect, it } from 'vitest';

const raw = { width: 2, height: 1, channels: 3 } as const;
const png = await sharp(Buffer.from([255, 0, 0, 0, 200, 30]), { raw }).png().toBuffer();

/** A new folder with files; those without bytes are a small PNG. */
function folderOf(...files: (string | [name: string, bytes: Uint8Array])[]): string {
  const root = mkdtempSync(join(tmpdir(), 'images-'));
  for (const file of files) {
    const [name, bytes] = typeof file === 'string' ? [file, png] : file;
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), bytes);
  }
  return root;
}

async function all(images: AsyncIterable<FolderImage>): Promise<FolderImage[]> {
  const out: FolderImage[] = [];
  for await (const image of images) out.push(image);
  return out;
}

const imagesOf = async (root: string): Promise<FolderImage[]> => all(readImages(await openImageFolder(root)));

describe('a folder of images', () => {
  const before = process.cwd();
  afterEach(() => process.chdir(before));

  it('is the same however it is named', async () => {
    const root = folderOf('cats/a.png', 'dogs/b.png');
    process.chdir(root);
    for (const name of ['.', './', `../${root.split('/').at(-1)!}/`, `${root}//`, join(root, 'cats', '..')]) {
      const { paths, classNames, labels } = await openImageFolder(name);
      expect([paths, classNames, [...labels]], name).toEqual([['cats/a.png', 'dogs/b.png'], ['cats', 'dogs'], [0, 1]]);
    }
    expect((await imagesOf('.')).map(({ path, label }) => [path, label])).toEqual([['cats/a.png', 0], ['dogs/b.png', 1]]);
  });

  it('has classes in the order of their names, and in each the order of paths', async () => {
    const { paths, classNames, labels } = await openImageFolder(folderOf('cat-big/x.png', 'cat 2/x.png', 'cat/b.png', 'cat/a/z.png', 'cat/a b/z.png', 'dog/x.png', 'Zebra/x.png', 'cat/c.txt', 'none/c.txt'));
    expect(classNames).toEqual(['Zebra', 'cat', 'cat 2', 'cat-big', 'dog']);
    expect(paths).toEqual(['Zebra/x.png', 'cat/a b/z.png', 'cat/a/z.png', 'cat/b.png', 'cat 2/x.png', 'cat-big/x.png', 'dog/x.png']);
    expect([...labels]).toEqual([0, 1, 1, 1, 2, 3, 4]);
  });

  it('has what links in it point to, but does not go round in circles', async () => {
    const elsewhere = folderOf('one.png', 'two.png');
    const root = folderOf('a/own.png');
    symlinkSync(join(elsewhere, 'one.png'), join(root, 'a/linked.png'));
    symlinkSync(elsewhere, join(root, 'b'));
    symlinkSync(elsewhere, join(root, 'c'));
    symlinkSync('..', join(root, 'a/up'));
    symlinkSync('.', join(root, 'a/here'));
    expect((await openImageFolder(root)).paths).toEqual(['a/linked.png', 'a/own.png', 'b/one.png', 'b/two.png', 'c/one.png', 'c/two.png']);
    const link = join(mkdtempSync(join(tmpdir(), 'images-')), 'link');
    symlinkSync(root, link);
    expect((await imagesOf(link)).length).toBe(6);
  });

  it('names a link to nothing: as a broken image, or where it may have been a folder', async () => {
    const root = folderOf('a/own.png');
    symlinkSync('nowhere.png', join(root, 'a/gone.png'));
    symlinkSync('round.png', join(root, 'a/round.png'));
    const folder = await openImageFolder(root);
    expect(folder.paths).toEqual(['a/gone.png', 'a/own.png', 'a/round.png']);
    await expect(all(readImages(folder))).rejects.toThrow(/a\/gone\.png cannot be decoded/);
    const broken: string[] = [];
    expect((await all(readImages(folder, { onBroken: (path) => broken.push(path) }))).length).toBe(1);
    expect(broken).toEqual(['a/gone.png', 'a/round.png']);
    symlinkSync('/mnt/unmounted/b', join(root, 'b'));
    await expect(openImageFolder(root)).rejects.toThrow(`${join(root, 'b')} is a link to nothing`);
    await expect(openImageFolder(root)).rejects.toBeInstanceOf(DataError);
  });

  it('is refused where it has no image that can be read, or has some beside its classes', async () => {
    const root = folderOf(['a/x.bmp', new Uint8Array(8)], ['a/y.ppm', new Uint8Array(8)]);
    await expect(openImageFolder(root)).rejects.toThrow(/has no images; expected files that end in \.png, .*\.avif, in it/);
    await expect(openImageFolder(join(root, 'a/x.bmp'))).rejects.toThrow('it is a file');
    await expect(openImageFolder(join(root, 'b'))).rejects.toThrow('there is no such folder');
    await expect(openImageFolder(folderOf('a/x.png', 'y.png'))).rejects.toThrow('has images beside its folders of classes (y.png)');
  });

  it('is read ahead as far as is asked, from where is asked', async () => {
    const folder = await openImageFolder(folderOf('1.png', '2.png', '3.png'));
    for (const ahead of [-1, 0.5, Number.NaN]) await expect(readImages(folder, { ahead }).next()).rejects.toThrow(`ReadImagesOptions.ahead is ${ahead}, expected`);
    for (const from of [-1, 0.5]) await expect(readImages(folder, { from }).next()).rejects.toThrow(`ReadImagesOptions.from is ${from}, expected`);
    for (const ahead of [0, 1, 8]) expect((await all(readImages(folder, { ahead, from: 1 }))).map(({ path }) => path)).toEqual(['2.png', '3.png']);
    expect(await all(readImages(folder, { from: 3 }))).toEqual([]);
  });
});

describe('pixels of a file', () => {
  const pixelsOf = async (name: string, bytes: Uint8Array): Promise<number[]> => [...(await imagesOf(folderOf([name, bytes])))[0]!.pixels];

  it('are those stored, whatever the colour profile', async () => {
    const stored = [255, 0, 0, 0, 200, 30];
    const file = await sharp(Buffer.from(stored), { raw }).withIccProfile('p3').png().toBuffer();
    expect((await sharp(file).metadata()).icc).toBeDefined();
    const plain = await sharp(file, { ignoreIcc: true }).raw().toBuffer();
    expect([...plain]).not.toEqual(stored); // the profile has changed what is stored
    expect(await pixelsOf('p3.png', file)).toEqual([...plain]);
  });

  it('of grey, palettes and transparency are red, green and blue', async () => {
    expect(await pixelsOf('grey.png', await sharp(Buffer.from([7, 9]), { raw: { ...raw, channels: 1 } }).toColourspace('b-w').png().toBuffer())).toEqual([7, 7, 7, 9, 9, 9]);
    expect(await pixelsOf('clear.png', await sharp(Buffer.from([200, 100, 50, 128, 10, 20, 30, 0]), { raw: { ...raw, channels: 4 } }).png().toBuffer())).toEqual([200, 100, 50, 10, 20, 30]);
    expect(await pixelsOf('palette.png', await sharp(Buffer.from([255, 0, 0, 0, 200, 30]), { raw }).png({ palette: true }).toBuffer())).toEqual([255, 0, 0, 0, 200, 30]);
  });

  // written and converted by Pillow 12.3: Image.new('CMYK', (4, 1)).putdata([(0, 0, 0, 0), (255, 0, 0, 0), (10, 200, 30, 40), (90, 80, 70, 200)])
  it.each([
    ['tif', 'SUkqAAgAAAAKAAABBAABAAAABAAAAAEBBAABAAAAAQAAAAIBAwAEAAAAhgAAAAMBAwABAAAAAQAAAAYBAwABAAAABQAAABEBBAABAAAAjgAAABUBAwABAAAABAAAABYBBAABAAAAAQAAABcBBAABAAAAEAAAABwBAwABAAAAAQAAAAAAAAAIAAgACAAIAAAAAAD/AAAACsgeKFpQRsg=', [255, 255, 255, 0, 255, 255, 207, 46, 190, 36, 38, 40]],
    ['jpg', '/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwADAgIDAgIDAwMDBAMDBAUIBQUEBAUKBwcGCAwKDAwLCgsLDQ4SEA0OEQ4LCxAWEBETFBUVFQwPFxgWFBgSFBUU/8AAFAgAAQAEBEMRAE0RAFkRAEsRAP/EABYAAQEBAAAAAAAAAAAAAAAAAAgEB//EACYQAAACBgsAAAAAAAAAAAAAAAAEAgMFBgd2CTQ2Nzh0dbO1tsH/2gAOBEMATQBZAEsAAD8A2RCrnZjejsrVCLfe+qKGsFeJIBqRptsnl1fonpP8RxGXyu8vH//Z', [255, 255, 255, 0, 255, 255, 207, 46, 190, 35, 37, 39]],
  ])('of CMYK are PIL\'s, in a .%s', async (ending, base64, expected) => {
    expect(await pixelsOf(`cmyk.${ending}`, Buffer.from(base64, 'base64'))).toEqual(expected);
  });

  it('of 16 bits are scaled to 8', async () => {
    const grey = await sharp(Uint16Array.of(0, 256 * 100 + 55, 65_535, 12_345), { raw: { width: 4, height: 1, channels: 1 } }).toColourspace('grey16').png().toBuffer();
    expect(await pixelsOf('grey16.png', grey)).toEqual([0, 100, 255, 48].flatMap((v) => [v, v, v]));
  });
});
