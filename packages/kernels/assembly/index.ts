export { attention, attentionGrad } from './attention';
export { conv2d, conv2dGradInput, conv2dGradWeight, swapTaps } from './conv';
export { adamw, gatedAdd, gatedAddGrad, gelu, geluGrad, silu, siluGrad, softmaxRows, sumOfSquares } from './elementwise';
export { batchedGemm, gemm, gemmScratch, packedGemm, sumRows } from './gemm';
export { groupNorm, groupNormGrad, norm, normGrad } from './norm';
export { expandRows } from './packed';
