/** A published file. Sizes and hashes are there where its publisher states them. */
export interface KnownCheckpoint {
  /** Where it lies: a URL, or a file on the Hugging Face hub, `hf://owner/repository/path`. */
  from: string;
  /** What it is called on disk. */
  file: string;
  /** What it is, in words. */
  what: string;
  /** The model whose weights it holds, by the name of its preset. */
  model?: string;
  /** Licence of the weights. */
  licence: string;
  /** Bytes. */
  size?: number;
  /** SHA-256 in hexadecimal; for files of the hub, it is what the hub says when it is asked. */
  sha256?: string;
  /** Its first digits, where only these are published, in the file's name. */
  sha256Prefix?: string;
}

/**
 * Weights that the models' authors publish, by names of ours. None is shipped; they keep their licences, some of which
 * allow no commercial use.
 */
export const knownCheckpoints: Readonly<Record<string, KnownCheckpoint>> = {
  'dit-xl-2-256': { from: 'https://dl.fbaipublicfiles.com/DiT/models/DiT-XL-2-256x256.pt', file: 'DiT-XL-2-256x256.pt', what: 'DiT-XL/2 for 256×256, averaged weights', model: 'DiT-XL/2', licence: 'CC-BY-NC-4.0' },
  'dit-xl-2-512': { from: 'https://dl.fbaipublicfiles.com/DiT/models/DiT-XL-2-512x512.pt', file: 'DiT-XL-2-512x512.pt', what: 'DiT-XL/2 for 512×512, averaged weights', model: 'DiT-XL/2', licence: 'CC-BY-NC-4.0' },
  'tinydit-d14': { from: 'https://github.com/VainF/TinyFusion/releases/download/v1.0.0/TinyDiT-D14-MaskedKD-500K.pt', file: 'TinyDiT-D14-MaskedKD-500K.pt', what: 'TinyDiT of 14 layers, recovered by masked distillation', model: 'DiT-D14/2', licence: 'CC-BY-NC-4.0' },
  'sit-xl-2-256': { from: 'https://www.dl.dropboxusercontent.com/scl/fi/as9oeomcbub47de5g4be0/SiT-XL-2-256.pt?rlkey=uxzxmpicu46coq3msb17b9ofa&dl=0', file: 'SiT-XL-2-256x256.pt', what: 'SiT-XL/2 for 256×256', model: 'SiT-XL/2', licence: 'MIT' },
  'mar-b': { from: 'https://www.dropbox.com/scl/fi/f6dpuyjb7fudzxcyhvrhk/checkpoint-last.pth?rlkey=a6i4bo71vhfo4anp33n9ukujb&dl=1', file: 'mar-base.pth', what: 'MAR-B for 256×256', model: 'MAR-B', licence: 'MIT' },
  'mar-l': { from: 'https://www.dropbox.com/scl/fi/pxacc5b2mrt3ifw4cah6k/checkpoint-last.pth?rlkey=m48ovo6g7ivcbosrbdaz0ehqt&dl=1', file: 'mar-large.pth', what: 'MAR-L for 256×256', model: 'MAR-L', licence: 'MIT' },
  'mar-h': { from: 'https://www.dropbox.com/scl/fi/1qmfx6fpy3k7j9vcjjs3s/checkpoint-last.pth?rlkey=4lae281yzxb406atp32vzc83o&dl=1', file: 'mar-huge.pth', what: 'MAR-H for 256×256', model: 'MAR-H', licence: 'MIT' },
  'kl16': { from: 'https://www.dropbox.com/scl/fi/hhmuvaiacrarfg28qxhwz/kl16.ckpt?rlkey=l44xipsezc8atcffdp4q7mwmh&dl=1', file: 'kl16.ckpt', what: 'MAR’s autoencoder, 16 channels, 16 pixels a latent', licence: 'MIT' },
  'sd-vae-ft-ema': { from: 'hf://stabilityai/sd-vae-ft-ema/diffusion_pytorch_model.safetensors', file: 'sd-vae-ft-ema.safetensors', what: 'Stable Diffusion’s autoencoder, averaged weights', licence: 'MIT' },
  'sd-vae-ft-mse': { from: 'hf://stabilityai/sd-vae-ft-mse/diffusion_pytorch_model.safetensors', file: 'sd-vae-ft-mse.safetensors', what: 'Stable Diffusion’s autoencoder, trained on to a smaller squared error', licence: 'MIT' },
  'taesd': { from: 'hf://madebyollin/taesd/diffusion_pytorch_model.safetensors', file: 'taesd.safetensors', what: 'TAESD, a small autoencoder of Stable Diffusion’s latents', licence: 'MIT' },
  'inception': { from: 'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth', file: 'pt_inception-2015-12-05-6726825d.pth', what: 'FID’s Inception of 2015-12-05 for PyTorch', licence: 'Apache-2.0', sha256Prefix: '6726825d' },
  'inception-tensorflow': { from: 'https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/classify_image_graph_def.pb', file: 'classify_image_graph_def.pb', what: 'FID’s Inception of 2015-12-05 as TensorFlow’s graph', licence: 'Apache-2.0' },
  'imagenet-256-reference': { from: 'https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/256/VIRTUAL_imagenet256_labeled.npz', file: 'VIRTUAL_imagenet256_labeled.npz', what: 'ADM’s reference batch: statistics of ImageNet at 256×256, and 10,000 of its images', licence: 'ImageNet’s terms: research, not commercial' },
  'dinov2-vitl14': { from: 'https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth', file: 'dinov2_vitl14_pretrain.pth', what: 'DINOv2 ViT-L/14, the features of FD-DINOv2', licence: 'Apache-2.0' },
};
