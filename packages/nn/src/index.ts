export { axes, type Float } from '@tinyfusion/kernels';
export { composeHooks, captureFeatures, hooksByStack, plainBranch, runBlocks, type BlockHook, type BlockSite, type BranchHook, type FeatureCapture, type HookOptions, type RunBlock } from './block-hook.js';
export { normal, ones, parameter, requireRng, torchDefault, uniform, xavierUniform, zeros, type Init, type Initialiser, type PackedInit, type ParameterOptions } from './init.js';
export { MODEL_KEY, storedConfig, toSafetensors, type ToSafetensorsOptions } from './checkpoint.js';
export { Conv2d, Embedding, GroupNorm, LayerNorm, Linear, type Conv2dOptions, type LinearOptions } from './layers.js';
export { Module, moduleAt, replaceModule } from './module.js';
export { packWeight, type PackedValues } from './pack.js';
export { randomIntegers, randomNormal, randomUniform } from './random.js';
export { compareState, loadState, readState, type LoadStateOptions, type StateDifference } from './state.js';
