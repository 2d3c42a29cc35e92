export { activationMask, maskedFeatureLoss, type FeatureLossOptions } from './feature-loss.js';
export { decayingWeight, evenLayerMap, layerMapOfGroups, type LayerPair } from './layer-map.js';
export { distillationTerms, velocityDistillationTerms, type DistillationInputs, type DistillationOptions, type DistillationTerms, type VelocityDistillationInputs } from './output-distillation.js';
