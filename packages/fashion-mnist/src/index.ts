export { loadAsset, type AssetName } from './assets.js';
export { fashionMnistClassNames, loadFashionMnist } from './fashion-mnist.js';
export { loadAutoencoder, loadFeatureNetwork, loadTeacher, type TeacherFamily } from './models.js';
