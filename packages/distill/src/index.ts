export { ActivationStatistics, proposeThreshold, type LayerActivations, type ProposedThreshold } from './activation-statistics.js';
export { FeatureGuard, type FeatureExplosion, type FeatureGuardOptions, type FeatureGuardState } from './feature-guard.js';
export { activationMask, layerFeatureLosses, maskedFeatureLoss, type FeatureLossOptions } from './feature-loss.js';
export { composeMaps, decayingWeight, evenLayerMap, layerMapOfChoice, layerMapOfGroups, teacherChain, type ChainStage, type FeatureDecay, type LayerPair } from './layer-map.js';
export { distillationTerms, velocityDistillationTerms, type DistillationInputs, type DistillationOptions, type DistillationTerms, type VelocityDistillationInputs } from './output-distillation.js';
export { recoveryVariants, type RecoveryVariant } from './recovery-variants.js';
