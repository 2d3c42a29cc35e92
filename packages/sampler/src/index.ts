export { DecisionHistory, decide, type Decision, type DecisionRow, type GroupDecision } from './decision.js';
export { gateHook } from './gate-hook.js';
export { gatedResidual } from './gated-residual.js';
export { binomial, combinations, parseGroups, type Group, type GroupScheme } from './groups.js';
export { LayerGates, type LayerGatesOptions, type SampleMasksOptions, type SampledMasks } from './layer-gates.js';
export { cosine, defaultScaling, defaultTau, exponential, linear, type GateSchedule } from './schedules.js';
