import { AutoencoderKL, type AutoencoderConfig, fromDiffusersNames, posteriorKL, samplePosterior } from '@tinyfusion/models';
import { loadState } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import { beforeAll, describe, it } from 'vitest';
import { formulaState } from './formula-weights.js';
import { expectClose, goldenCases, imagesOf, toStored, useGoldenBackend } from './harness.js';

beforeAll(useGoldenBackend);
const tolerance = { ofMax: 2e-4 };

for (const golden of goldenCases('vae_')) {
  const { vae: settings, weights } = golden.config as { vae: Record<string, number & number[]>; weights: { kind: string; gain: number } };
  const diffusers = settings['ch'] === undefined;
  describe(golden.name, () => {
    const levels = (resolutions: number[]): number[] => (settings['ch_mult'] as number[]).map((_, i) => i).filter((i) => resolutions.includes(settings['resolution']! / 2 ** i));
    const widths = (settings['block_out_channels'] ?? []) as number[];
    const config: AutoencoderConfig = diffusers ? {
      inChannels: settings['in_channels']!,
      channels: widths[0]!,
      channelMultipliers: widths.map((w) => w / widths[0]!),
      numResBlocks: settings['layers_per_block']!,
      latentChannels: settings['latent_channels']!,
      groups: settings['norm_num_groups']!,
      scalingFactor: golden.config['scaling_factor'] as number,
    } : {
      inChannels: golden.get('in.x').shape[1]!,
      channels: settings['ch']!,
      channelMultipliers: settings['ch_mult']!,
      numResBlocks: settings['num_res_blocks']!,
      latentChannels: settings['embed_dim']!,
      groups: 32,
      scalingFactor: 1,
      encoderAttentionLevels: levels(settings['encoder_attn_resolutions']!),
      decoderAttentionLevels: levels(settings['decoder_attn_resolutions']!),
    };
    async function build(): Promise<AutoencoderKL> {
      const vae = new AutoencoderKL(config, { init: 'zeros' });
      const state = weights.kind === 'stored' ? golden.state() : formulaState(JSON.parse(golden.metadata['shapes']!) as Record<string, number[]>, weights.gain);
      await loadState(vae, diffusers ? fromDiffusersNames(state, config.channelMultipliers.length) : state);
      return vae;
    }

    it('encodes, samples and decodes', async () => {
      const vae = await build();
      const { mean, logVariance } = vae.encode(imagesOf(golden.get('in.x')));
      await expectClose('mean', toStored(mean), golden.get('out.mean'), tolerance);
      await expectClose('logvar', toStored(logVariance), golden.get('out.logvar'), tolerance);
      await expectClose('sample', toStored(samplePosterior(mean, logVariance, imagesOf(golden.get('in.posterior_noise')))), golden.get('out.sample'), tolerance);
      if (golden.tensors.has('out.kl')) await expectClose('kl', posteriorKL(mean, logVariance), golden.get('out.kl'), tolerance);
      await expectClose('decoded', toStored(vae.decode(imagesOf(golden.get('in.z')))), golden.get('out.decoded'), tolerance);
    });

    if (golden.tensors.has('grad.in.x')) {
      it('has its gradient by the image', async () => {
        const vae = await build();
        const loss = (x: tf.Tensor) => tf.mean(tf.square(vae.decode(vae.encode(x as tf.Tensor4D).mean)));
        await expectClose('grad.in.x', toStored(tf.grad(loss)(imagesOf(golden.get('in.x'))) as tf.Tensor4D), golden.get('grad.in.x'), tolerance);
      });
    }
  });
}
