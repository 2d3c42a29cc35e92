import type { TinyAutoencoder } from '@tinyfusion/models';
import { Conv2d } from '@tinyfusion/nn';
import * as tf from '@tensorflow/tfjs-core';
import type { GraphBuilder, Value } from './graph-builder.js';
import { conv2d } from './layers.js';
import { around, channelsFirst, channelsLast, repeatPixels } from './vae.js';

type Layer = TinyAutoencoder['decoder']['layers'][number];

/** `TinyAutoencoder.decode`: `x` `[N, h, w, 4]`, scaled latents → `output` `[N, 8·h, 8·w, 3]`, about [-1, 1], not clipped. */
export function tinyDecoderGraph(g: GraphBuilder, model: TinyAutoencoder): void {
  const x = channelsFirst(g, g.input('x', 'F32', ['N', 'h', 'w', 4]));
  const soft = g.node('Mul', [g.node('Tanh', [g.node('Mul', [x, g.scalar(1 / 3)])]), g.scalar(3)]);
  const image = model.decoder.layers.reduce((h, layer) => drawn(g, layer, h, 1), soft);
  g.output('output', channelsLast(g, g.node('Sub', [g.node('Mul', [image, g.scalar(2)]), g.scalar(1)])), ['N', 'H', 'W', 3]);
}

/** `TinyAutoencoder.toLatents`: `x` `[N, H, W, 3]` in [-1, 1] → `output` `[N, H/8, W/8, 4]`, scaled latents. */
export function tinyEncoderGraph(g: GraphBuilder, model: TinyAutoencoder): void {
  const x = channelsFirst(g, g.input('x', 'F32', ['N', 'H', 'W', 3]));
  const half = g.node('Mul', [g.node('Add', [x, g.scalar(1)]), g.scalar(0.5)]);
  // the encoder's convolutions without a bias halve the image
  const latents = model.encoder.layers.reduce((h, layer) => drawn(g, layer, h, layer instanceof Conv2d && layer.bias === undefined ? 2 : 1), half);
  g.output('output', channelsLast(g, latents), ['N', 'h', 'w', 4]);
}

function drawn(g: GraphBuilder, layer: Layer, x: Value, stride: number): Value {
  if (layer instanceof Conv2d) return conv2d(g, layer, x, { ...around, stride });
  if (typeof layer === 'function') return layer === tf.relu ? g.node('Relu', [x]) : repeatPixels(g, x);
  const [first, , second, , third] = layer.conv;
  const inner = [first, second].reduce((h, conv) => g.node('Relu', [conv2d(g, conv, h, around)]), x);
  return g.node('Relu', [g.node('Add', [x, conv2d(g, third, inner, around)])]);
}
