export { LoraLinear } from './lora-linear.js';
export { LoraAdapters, injectLora, type LoraOptions } from './lora.js';
