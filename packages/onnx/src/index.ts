export { onnxDenoiser, type OnnxDenoiserOptions } from './denoiser.js';
export { exportOnnx, type ExportableModel, type ExportOnnxOptions, type OnnxData, type OnnxExport, type OnnxPart } from './export.js';
