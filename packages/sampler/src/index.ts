export { decide, type Decision, type GroupDecision } from './decision.js';
export { DecisionHistory, type DecisionRow, type StopOptions, type StoredDecisionHistory } from './decision-history.js';
export { gateHook } from './gate-hook.js';
export { gatedResidual } from './gated-residual.js';
export { binomial, combinations, parseGroups, type Group, type GroupScheme, type OptionGroup } from './groups.js';
export { LayerGates, type LayerGatesOptions, type SampleMasksOptions, type SampledMasks, type ScoresOptions } from './layer-gates.js';
export { cosine, defaultScaling, defaultTau, exponential, linear, type GateSchedule } from './schedules.js';
