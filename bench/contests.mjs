// What is measured, and against whom. A ratio above 1 means that ours is so many times faster, or needs so many times less.

const S = { width: 384, depth: 12, heads: 6 };
const XL = { width: 1152, depth: 28, heads: 16 };
/** The model of the targets: 64 tokens. */
const small = { ...S, size: 16, batch: 8 };

const ours = (work) => ({ program: 'ours.mjs', work });
const stock = (work, more) => ({ peer: 'stock tfjs', program: 'ours.mjs', work: { ...work, kernels: 'stock' }, ...more });
const plain = (layout, work, more) => ({ peer: layout === 'best' ? 'stock tfjs, arranged by hand' : "stock tfjs, PyTorch's weight layout", program: 'plain.mjs', work: { ...work, layout }, ...more });
const pytorch = (work, threads = 1) => ({ peer: `PyTorch, ${threads} thread${threads > 1 ? 's' : ''}`, program: 'pytorch.py', work: { ...work, threads } });
const onnxNode = (work, threads = 1) => ({ peer: `ONNX Runtime Node, ${threads} thread${threads > 1 ? 's' : ''}`, program: 'onnx.mjs', work: { ...work, runtime: 'node', threads } });
const onnxWeb = (work) => ({ peer: 'ONNX Runtime web, WASM', program: 'onnx.mjs', work: { ...work, runtime: 'web' } });
const jax = (work) => ({ peer: 'jax-js, WASM', program: 'jax.mjs', work });

const product = (name, work) => ({ name, ours: ours(work), peers: [stock(work), pytorch(work), jax(work)] });
const forward = (name, shape, peers) => ({ name, ours: ours({ work: 'forward', ...shape }), peers: peers.map((peer) => peer({ work: 'forward', ...shape })) });
const everyone = [(w) => plain('best', w), (w) => plain('pytorch', w, { runs: 1 }), onnxNode, onnxWeb, jax, pytorch];

const step = { work: 'step', ...small };
const masks = { work: 'masks', ...small };
const attention = { work: 'attention', batch: 8, heads: 6, tokens: 256, headWidth: 64 };
const block = { work: 'block', width: 384, heads: 6, tokens: 256, batch: 8 };
const image = { work: 'image', ...S, size: 32, batch: 1, steps: 10 };
const decode = { work: 'decode', latents: 16 };
const depths = (name, shape) => {
  const at = (depth) => ours({ work: 'forward', ...shape, depth });
  return { name, ours: at(14), peers: [{ peer: '28 layers', other: true, ...at(28) }] };
};

/** `clock: 'wall'` where more than one thread works, `fresh` where starting is what is measured, `other` where a peer computes something else. */
export const contests = [
  product('matrix product, 512 × 384 by (1536 × 384)ᵀ', { work: 'product', m: 512, n: 1536, k: 384, transposed: true }),
  product('attention products, 192 × (64 × 64 by (64 × 64)ᵀ)', { work: 'product', batch: 192, m: 64, n: 64, k: 64, transposed: true }),
  { name: 'attention, 8 × 6 heads × 256 tokens × 64', ours: ours(attention), peers: [stock(attention), pytorch(attention)] },
  { name: 'a DiT block, width 384, 256 tokens, batch 8', ours: ours(block), peers: [plain('best', block), plain('pytorch', block), pytorch(block)] },
  forward('forward, width 384 × 12 blocks × 64 tokens × batch 8', small, everyone),
  { name: "that forward: ONNX Runtime Node against PyTorch", ours: onnxNode({ work: 'forward', ...small }), peers: [pytorch({ work: 'forward', ...small })] },
  forward('DiT-S/2 forward, batch 1', { ...S, size: 32, batch: 1 }, everyone),
  forward('DiT-S/2 forward, batch 8', { ...S, size: 32, batch: 8 }, [(w) => plain('best', w), onnxNode, onnxWeb, pytorch]),
  forward('DiT-XL/2 forward, batch 1', { ...XL, size: 32, batch: 1 }, [(w) => plain('best', w, { runs: 1 }), onnxNode, pytorch]),
  { name: 'training step, width 384 × 12 blocks × 64 tokens × batch 8', ours: ours(step), peers: [plain('pytorch', step, { runs: 1 }), plain('best', step, { runs: 2 }), pytorch(step)] },
  { name: 'training step, the same, two worker threads', clock: 'wall', ours: { program: 'replicas.mjs', work: { ...step, threads: 2 } }, peers: [{ peer: 'one thread', ...ours(step) }, pytorch(step, 2)] },
  { name: 'peak tensor memory of the training step', unit: 'MB', ours: ours({ ...step, work: 'memory' }), peers: [plain('pytorch', { ...step, work: 'memory' }, { runs: 1 }), plain('best', { ...step, work: 'memory' }, { runs: 1 })] },
  { name: 'learned-mask step, one mask for the batch', ours: ours({ ...masks, per: 'batch' }), peers: [{ peer: 'a mask for each sample', ...ours({ ...masks, per: 'sample' }) }] },
  depths('D14 against D28, width 384, 64 tokens, batch 8', small),
  depths('D14 against D28, width 1152 (XL), 256 tokens, batch 1', { ...XL, size: 32, batch: 1 }),
  { name: 'VAE decode to 128 × 128', ours: ours(decode), peers: [stock(decode), onnxNode(decode), onnxWeb(decode)] },
  { name: 'time to first image, DiT-S/2, 10 steps, from starting the process', fresh: true, ours: ours(image), peers: [stock(image, { runs: 1 }), pytorch(image)] },
];
