export { activationMask, maskedFeatureLoss, type FeatureLossOptions } from './feature-loss.js';
export { decayingWeight, evenLayerMap, layerMapOfGroups, type LayerPair } from './layer-map.js';
export { distillationTerms, type DistillationInputs, type DistillationOptions, type DistillationTerms } from './output-distillation.js';
