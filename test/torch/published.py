"""What upstream's first example does, in PyTorch alone and at the size of a test: a checkpoint and autoencoders in the
published formats, and the pictures that they make.

    python3 published.py FOLDER

writes
    TinyDiT-D14-MaskedKD-500K.pt      a training run's: {model, ema, opt, args, …}; 14 blocks of width 64
    sd-vae-ft-ema.bin                 diffusers' names of 2022, as on the hub
    taesd.bin                         diffusers' names
    expected.npy                      the grid of `sample.py --seed 5464` on a CPU, bytes [H, W, 3]
    expected_latents.npy              its latents, float32 [8, 4, 8, 8]
    expected_tiny.npy                 TAESD's images of these latents, float32 [8, 3, 64, 64]
    expected_moments.npy              the autoencoder's mean and log variance of the first of its own images
    images.npy, expected_features.npy pictures, bytes [3, 64, 64, 3], and what `extract_features.py` keeps of them on a CPU
"""
import argparse
import math
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

WIDTH, DEPTH, HEADS, SIDE, CLASSES = 64, 14, 16, 8, 1000


# the transformer ---------------------------------------------------------------------------------------------------

def modulated(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / math.sqrt(d // HEADS)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, t, d))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        h = self.fc1(x)
        return self.fc2(0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h ** 3))))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.mlp = Attention(), Mlp()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))

    def forward(self, x, c):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, 1)
        x = x + gate1[:, None] * self.attn(modulated(x, shift1, scale1))
        return x + gate2[:, None] * self.mlp(modulated(x, shift2, scale2))


class Named(nn.Module):
    """A module that is only a name for another."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        tokens = (SIDE // 2) ** 2
        self.x_embedder = Named(proj=nn.Conv2d(4, WIDTH, 2, 2))
        self.t_embedder = Named(mlp=nn.Sequential(nn.Linear(256, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH)))
        self.y_embedder = Named(embedding_table=nn.Embedding(CLASSES + 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.randn(1, tokens, WIDTH) * 0.1, requires_grad=False)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.final_layer = Named(linear=nn.Linear(WIDTH, 2 * 2 * 8), adaLN_modulation=nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 2 * WIDTH)))

    def forward(self, x, t, y):
        angles = t[:, None].float() * torch.exp(-math.log(10000) * torch.arange(128) / 128)
        c = self.t_embedder.mlp(torch.cat([angles.cos(), angles.sin()], 1)) + self.y_embedder.embedding_table(y)
        h = self.x_embedder.proj(x).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.final_layer.adaLN_modulation(c).chunk(2, 1)
        h = self.final_layer.linear(modulated(h, shift, scale))
        grid = SIDE // 2
        return h.view(-1, grid, grid, 2, 2, 8).permute(0, 5, 1, 3, 2, 4).reshape(-1, 8, SIDE, SIDE)


# the process: DDPM over the linear schedule, with a variance between two bounds ----------------------------------------

def sample(model, labels, steps, guidance):
    n = len(labels)
    x = torch.randn(n, 4, SIDE, SIDE)
    x = torch.cat([x, x])
    y = torch.tensor(labels + [CLASSES] * n)
    betas = np.linspace(1e-4, 0.02, 1000, dtype=np.float64)
    kept = sorted({round(i * 999 / (steps - 1)) for i in range(steps)})
    bars = np.cumprod(1 - betas)[kept]
    before = np.append(1.0, bars[:-1])
    betas = 1 - bars / before
    variance = betas * (1 - before) / (1 - bars)
    smallest = np.log(np.append(variance[1], variance[1:]))
    for i in reversed(range(steps)):
        half = x[:n]
        out = model(torch.cat([half, half]), torch.full((2 * n,), kept[i]), y)
        eps, part = out[:, :4], out[:, 4:]
        cond, uncond = eps[:n, :3], eps[n:, :3]
        guided = uncond + guidance * (cond - uncond)
        eps = torch.cat([torch.cat([guided, guided]), eps[:, 3:]], 1)
        start = math.sqrt(1 / bars[i]) * x - math.sqrt(1 / bars[i] - 1) * eps
        mean = betas[i] * math.sqrt(before[i]) / (1 - bars[i]) * start + (1 - before[i]) * math.sqrt(1 - betas[i]) / (1 - bars[i]) * x
        share = (part + 1) / 2
        log_variance = share * math.log(betas[i]) + (1 - share) * smallest[i]
        noise = torch.randn_like(x)
        x = mean + (0.5 * log_variance).exp() * noise if i > 0 else mean
    return x[:n]


# the autoencoder, by diffusers' names --------------------------------------------------------------------------------

CHANNELS = (32, 32, 64, 64)


class ResBlock(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, a, eps=1e-6), nn.Conv2d(a, b, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(32, b, eps=1e-6), nn.Conv2d(b, b, 3, padding=1)
        if a != b:
            self.conv_shortcut = nn.Conv2d(a, b, 1)

    def forward(self, x):
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.conv_shortcut(x) if hasattr(self, 'conv_shortcut') else x)


class Spatial(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.group_norm = nn.GroupNorm(32, c, eps=1e-6)
        self.query, self.key, self.value, self.proj_attn = (nn.Linear(c, c) for _ in range(4))

    def forward(self, x):
        n, c, h, w = x.shape
        z = self.group_norm(x).flatten(2).transpose(1, 2)
        weights = (self.query(z) @ self.key(z).transpose(1, 2) / math.sqrt(c)).softmax(-1)
        return x + self.proj_attn(weights @ self.value(z)).transpose(1, 2).reshape(n, c, h, w)


def middle(c):
    return Named(resnets=nn.ModuleList([ResBlock(c, c), ResBlock(c, c)]), attentions=nn.ModuleList([Spatial(c)]))


def through_middle(m, h):
    return m.resnets[1](m.attentions[0](m.resnets[0](h)))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_in = nn.Conv2d(3, CHANNELS[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for i, c in enumerate(CHANNELS):
            level = Named(resnets=nn.ModuleList([ResBlock(CHANNELS[max(0, i - 1)], c), ResBlock(c, c)]))
            if i < 3:
                level.downsamplers = nn.ModuleList([Named(conv=nn.Conv2d(c, c, 3, 2))])
            self.down_blocks.append(level)
        self.mid_block = middle(CHANNELS[-1])
        self.conv_norm_out, self.conv_out = nn.GroupNorm(32, CHANNELS[-1], eps=1e-6), nn.Conv2d(CHANNELS[-1], 8, 3, padding=1)

    def forward(self, x):
        h = self.conv_in(x)
        for level in self.down_blocks:
            for block in level.resnets:
                h = block(h)
            if hasattr(level, 'downsamplers'):
                h = level.downsamplers[0].conv(F.pad(h, (0, 1, 0, 1)))
        return self.conv_out(F.silu(self.conv_norm_out(through_middle(self.mid_block, h))))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        widths = CHANNELS[::-1]
        self.conv_in = nn.Conv2d(4, widths[0], 3, padding=1)
        self.mid_block = middle(widths[0])
        self.up_blocks = nn.ModuleList()
        for i, c in enumerate(widths):
            level = Named(resnets=nn.ModuleList([ResBlock(widths[max(0, i - 1)], c), ResBlock(c, c), ResBlock(c, c)]))
            if i < 3:
                level.upsamplers = nn.ModuleList([Named(conv=nn.Conv2d(c, c, 3, padding=1))])
            self.up_blocks.append(level)
        self.conv_norm_out, self.conv_out = nn.GroupNorm(32, widths[-1], eps=1e-6), nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z):
        h = through_middle(self.mid_block, self.conv_in(z))
        for level in self.up_blocks:
            for block in level.resnets:
                h = block(h)
            if hasattr(level, 'upsamplers'):
                h = level.upsamplers[0].conv(F.interpolate(h, scale_factor=2.0, mode='nearest'))
        return self.conv_out(F.silu(self.conv_norm_out(h)))


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.quant_conv, self.post_quant_conv = nn.Conv2d(8, 8, 1), nn.Conv2d(4, 4, 1)

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z))


# TAESD ------------------------------------------------------------------------------------------------------------------

class TinyBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))

    def forward(self, x):
        return F.relu(x + self.conv(x))


def tiny():
    def conv(a, b, **more):
        return nn.Conv2d(a, b, 3, padding=1, **more)

    encoder, decoder = [conv(3, 64), TinyBlock()], [conv(4, 64), nn.ReLU()]
    for _ in range(3):
        encoder += [conv(64, 64, stride=2, bias=False), TinyBlock(), TinyBlock(), TinyBlock()]
        decoder += [TinyBlock(), TinyBlock(), TinyBlock(), nn.Upsample(scale_factor=2), conv(64, 64, bias=False)]
    return Named(encoder=Named(layers=nn.Sequential(*encoder, conv(64, 4))), decoder=Named(layers=nn.Sequential(*decoder, TinyBlock(), conv(64, 3))))


# --------------------------------------------------------------------------------------------------------------------------

def grid(images, columns=4, gap=2):
    """The picture that torchvision's save_image makes of images in [-1, 1]: black lines between and around them."""
    n, _, h, w = images.shape
    rows = math.ceil(n / columns)
    out = np.zeros((rows * (h + gap) + gap, columns * (w + gap) + gap, 3), np.uint8)
    values = ((images.clamp(-1, 1) + 1) / 2 * 255 + 0.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for i in range(n):
        top, left = gap + i // columns * (h + gap), gap + i % columns * (w + gap)
        out[top:top + h, left:left + w] = values[i]
    return out


@torch.no_grad()
def main(folder):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, vae, small = Transformer().eval(), Autoencoder().eval(), tiny().eval()
    for block in model.blocks:
        block.adaLN_modulation[1].weight.mul_(0.3)
    vae.decoder.conv_out.weight.mul_(2)
    ema = OrderedDict((name, value.clone()) for name, value in model.state_dict().items())
    other = OrderedDict((name, torch.randn_like(value)) for name, value in ema.items())
    moments = {'state': {0: {'step': torch.tensor(500000.0), 'exp_avg': torch.zeros(WIDTH), 'exp_avg_sq': torch.zeros(WIDTH)}}, 'param_groups': [{'lr': 1e-4, 'betas': (0.9, 0.999), 'params': [0]}]}
    torch.save({'model': other, 'ema': ema, 'opt': moments, 'args': argparse.Namespace(model='DiT-D14/2', epochs=100), 'train_steps': 500000}, folder / 'TinyDiT-D14-MaskedKD-500K.pt')
    torch.save(vae.state_dict(), folder / 'sd-vae-ft-ema.bin')
    torch.save(small.state_dict(), folder / 'taesd.bin')

    torch.manual_seed(5464)
    latents = sample(model, [207, 360, 387, 974, 88, 979, 417, 279], 250, 4.0)
    images = vae.decode(latents / 0.18215)
    np.save(folder / 'expected.npy', grid(images))
    np.save(folder / 'expected_latents.npy', latents.numpy())
    scaled = latents / latents.std()
    np.save(folder / 'expected_tiny.npy', small.decoder.layers(torch.tanh(scaled / 3) * 3).mul(2).sub(1).numpy())
    np.save(folder / 'expected_tiny_latents.npy', small.encoder.layers(images.clamp(-1, 1).add(1).div(2)).numpy())
    np.save(folder / 'expected_moments.npy', vae.quant_conv(vae.encoder(images[:1].clamp(-1, 1))).numpy())

    pictures = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    np.save(folder / 'images.npy', pictures.numpy())
    torch.manual_seed(0)
    features = []
    for picture in pictures:
        x = ((picture.permute(2, 0, 1).float() / 255) - 0.5) / 0.5
        mean, log_variance = vae.quant_conv(vae.encoder(torch.stack([x, x.flip(2)]))).chunk(2, 1)
        features.append((mean + (0.5 * log_variance.clamp(-30, 20)).exp() * torch.randn(mean.shape)) * 0.18215)
    np.save(folder / 'expected_features.npy', torch.stack(features).numpy())


if __name__ == '__main__':
    main(Path(sys.argv[1]))
