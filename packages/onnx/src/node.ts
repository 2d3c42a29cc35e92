/**
 * ONNX files on disk, under Node.
 * @packageDocumentation
 */
import { writeAtomic } from '@tinyfusion/weights/node';
import { writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { type ExportableModel, type ExportOnnxOptions, onnxFiles } from './export.js';

/** Options of {@link writeOnnx}. */
export type WriteOnnxOptions = Omit<ExportOnnxOptions, 'dataName'>;

/**
 * Writes a model as `path`, and where its weights lie beside it as `path` and `.data`, tensor by tensor: no more than one
 * is in memory. Each file is there whole or not at all, and the weights are there before the model.
 *
 * @param path e.g. `dit.onnx`; weights beside it are `dit.onnx.data`
 * @returns the paths that were written
 * @throws as `exportOnnx`, and CheckpointError where a file cannot be written; the old files stay then
 */
export async function writeOnnx(path: string, model: ExportableModel, options: WriteOnnxOptions = {}): Promise<string[]> {
  const { model: file, data } = await onnxFiles(model, { ...options, dataName: `${basename(path)}.data` });
  const beside = data === undefined ? [] : [join(dirname(path), data.name)];
  if (data !== undefined) await writeAtomic(beside[0]!, (handle) => writeFile(handle, data.stream()));
  await writeAtomic(path, (handle) => writeFile(handle, file.stream()));
  return [path, ...beside];
}
