import { ArgumentError } from '@tinyfusion/core';
import { FeatureStatistics, type SavedStatistics, readStatistics, statisticsTensors } from '@tinyfusion/eval';
import { writeNpz, writeTorchArrays } from '@tinyfusion/weights';
import { checkWritable, openCheckpoint } from '@tinyfusion/weights/node';
import { basename } from 'node:path';
import { setFeatures, setNetwork } from '../set-features.js';
import { type JobContext, alone, leads, write } from './context.js';
import { openNetwork } from './evaluate.js';
import { openSamples } from './sets.js';

/** Options of `tinyfusion stats`. */
export interface StatsJob {
  inception?: string;
  dinov2?: string;
  /** Whose files: ADM's have sFID's statistics too. */
  layout: 'adm' | 'pytorch-fid' | 'torch-fidelity';
  batch?: number;
  skipBroken?: boolean;
  out: string;
}

/** Statistics of a set of images, or of several that belong together, to measure samples against. */
export async function statsJob(paths: readonly string[], { layout, batch, skipBroken, out, ...job }: StatsJob, context: JobContext): Promise<void> {
  const ending = layout === 'torch-fidelity' ? '.pt' : '.npz';
  if (!out.endsWith(ending)) throw new ArgumentError('--out', out, `a name that ends in ${ending}, as ${layout}'s files`);
  await checkWritable(out);
  for (const path of paths) {
    await using _ = await openSamples(path, { skipBroken, signal: alone(context) }); // what is no set is an error before a network is fetched
  }
  const { network, dispose } = await openNetwork(job, context);
  const net = setNetwork(network);
  if (layout === 'adm' && net.spatialDimension === 0) throw new ArgumentError('--layout', layout, `pytorch-fid or torch-fidelity: ${net.name} has no spatial features`);
  const pooled = new FeatureStatistics(net.dimension);
  const spatial = net.spatialDimension === 0 ? undefined : new FeatureStatistics(net.spatialDimension);
  const warnings: string[] = [];
  for (const path of paths) {
    await using images = await openSamples(path, { skipBroken, signal: alone(context) });
    const set = await setFeatures(net, images, { batchSize: batch, ...context });
    pooled.merge(set.pooled);
    if (set.spatial !== undefined) spatial?.merge(set.spatial);
    warnings.push(...images.warnings);
  }
  dispose();
  if (!leads(context)) return;
  const statistics: SavedStatistics = { pooled: pooled.finish(), ...(layout !== 'adm' || spatial === undefined ? {} : { spatial: spatial.finish() }) };
  const tensors = statisticsTensors(statistics);
  await write(out, layout === 'torch-fidelity' ? await writeTorchArrays(tensors) : await writeNpz(tensors));
  // what was written is read back before it is relied on
  await using written = await openCheckpoint(out);
  await readStatistics(written, basename(out));
  if (pooled.count <= net.dimension) warnings.push(`${pooled.count} images for ${net.dimension} features: their covariance is singular; use more than ${net.dimension}, better 50,000`);
  for (const warning of warnings) console.error(`note: ${warning}`);
  console.log(`${pooled.count} images, ${net.name}`);
}
