export { ConvClassifier, classifierFeatures, loadConvClassifier, type ClassifierFeaturesOptions, type ConvClassifierConfig } from './conv-classifier.js';
export { evaluate, statisticsOf, type EvaluateOptions, type Evaluation } from './evaluate.js';
export { extractFeatures, type ExtractOptions, type ExtractedFeatures, type FeatureNetwork, type FeatureProvenance } from './feature-network.js';
export { frechetDistance, type FrechetDistance } from './frechet.js';
export { Inception, inceptionFeatures, inceptionShapes, prepareImages, type InceptionFeatures, type InceptionOptions } from './inception.js';
export { inceptionScore, type InceptionScore, type InceptionScoreOptions } from './inception-score.js';
export { kernelDistance, type KernelDistance, type KernelDistanceOptions, type KernelSubset } from './kernel-distance.js';
export { precisionRecall, type PrecisionRecall, type PrecisionRecallOptions } from './precision-recall.js';
export { FeatureStatistics, type Statistics } from './statistics.js';
