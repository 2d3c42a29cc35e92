export { ConvClassifier, classifierFeatures, loadConvClassifier, type ConvClassifierConfig } from './conv-classifier.js';
export { evaluate, statisticsOf, type EvaluateOptions, type Evaluation } from './evaluate.js';
export { extractFeatures, type ExtractOptions, type ExtractedFeatures, type FeatureNetwork } from './feature-network.js';
export { frechetDistance, type FrechetDistance } from './frechet.js';
export { inceptionScore, type InceptionScore, type InceptionScoreOptions } from './inception-score.js';
export { kernelDistance, type KernelDistance, type KernelDistanceOptions } from './kernel-distance.js';
export { precisionRecall, type PrecisionRecall, type PrecisionRecallOptions } from './precision-recall.js';
export { FeatureStatistics, type Statistics } from './statistics.js';
