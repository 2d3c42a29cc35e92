'use client';

import { useEffect, useState } from 'react';

/** Learns gates on WASM, in the browser alone: tfjs is loaded when the component is there. */
export function Gates() {
  const [text, setText] = useState('learning …');
  useEffect(() => {
    let gone = false;
    learn().then(
      (result) => gone || setText(result),
      (error: unknown) => gone || setText(`failed: ${String(error)}`),
    );
    return () => {
      gone = true;
    };
  }, []);
  return <p id="gates">{text}</p>;
}

async function learn(): Promise<string> {
  const [tf, { setWasmPaths }, { createRng }, { useBackend: startBackend }, { LayerGates }] = await Promise.all([import('@tensorflow/tfjs'), import('@tensorflow/tfjs-backend-wasm'), import('@tinyfusion/core'), import('@tinyfusion/kernels'), import('@tinyfusion/sampler')]);
  setWasmPaths('/wasm/');
  const { name } = await startBackend({ prefer: 'wasm' });
  const gates = new LayerGates('1:2', 4);
  const cost = tf.tensor1d([0, 1, 1, 0]);
  const optimizer = tf.train.adam(0.01);
  const rng = createRng(0);
  for (let step = 0; step < 60; step++) {
    optimizer.minimize(() => tf.mean(tf.sum(tf.mul(tf.stack(gates.sample(32, { tau: 1, scaling: 100, rng }).masks, 1), cost), 1)), false, gates.gates);
  }
  return `kept ${(await gates.decide(100)).kept.join(' ')} on ${name}`;
}
