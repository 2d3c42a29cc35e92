// on the server packages are loaded by Node as they are: they read WASM and weights from beside their own files
export default {
  serverExternalPackages: ['@tensorflow/tfjs', '@tensorflow/tfjs-core', '@tensorflow/tfjs-backend-wasm', '@tinyfusion/fashion-mnist', '@tinyfusion/kernels', '@tinyfusion/models', '@tinyfusion/pruning'],
};
