"""Golden cases with other settings and other numbers than those of fixtures/golden, from formulas written anew in PyTorch,
numpy, SciPy and Pillow. Families whose reference is too long to write again are not here.

    python3 test/torch/golden_cases.py FOLDER [SEED]
    TINYFUSION_GOLDEN=FOLDER pnpm golden
"""
import itertools
import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

KINDS = {np.dtype('float32'): 'F32', np.dtype('int32'): 'I32', np.dtype('uint8'): 'U8'}


def write(folder, name, config, tensors, **metadata):
    header, data = {'__metadata__': {'config': json.dumps(config), 'about': name, 'reference': 'golden_cases.py', 'tolerance': 'as in fixtures/golden', **metadata}}, []
    at = 0
    for key, value in tensors.items():
        array = value.detach().numpy() if torch.is_tensor(value) else np.asarray(value)
        if array.dtype not in KINDS:
            array = array.astype(np.float32 if array.dtype.kind == 'f' else np.int32)
        raw = np.ascontiguousarray(array).tobytes()
        header[key] = {'dtype': KINDS[array.dtype], 'shape': list(array.shape), 'data_offsets': [at, at + len(raw)]}
        data.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    (folder / f'{name}.safetensors').write_bytes(struct.pack('<Q', len(text)) + text + b''.join(data))


# DiT and SiT ----------------------------------------------------------------------------------------------------------

def sines(values, dim, period=10000):
    half = dim // 2
    angles = values[:, None].float() * torch.exp(-math.log(period) * torch.arange(half, dtype=torch.float32) / half)
    out = torch.cat([angles.cos(), angles.sin()], 1)
    return F.pad(out, (0, 1)) if dim % 2 else out


def positions(dim, grid, extra=0):
    def axis(where):
        rates = 1 / 10000 ** (np.arange(dim // 4, dtype=np.float64) / (dim / 4))
        angles = where[:, None] * rates
        return np.concatenate([np.sin(angles), np.cos(angles)], 1)

    rows, columns = np.divmod(np.arange(grid * grid), grid)
    table = np.concatenate([axis(columns), axis(rows)], 1)
    return np.concatenate([np.zeros([extra, dim]), table])


def modulated(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


class Transformer:
    """A DiT or SiT over a dictionary of weights of upstream's names."""

    def __init__(self, config, seed, is_sit=False):
        self.config, self.is_sit = config, is_sit
        g = torch.Generator().manual_seed(seed)
        d, p, c = config['hidden_size'], config['patch_size'], config['in_channels']
        self.out_channels = 2 * c if config['learn_sigma'] else c
        hidden = int(d * config['mlp_ratio'])
        rows = config['num_classes'] + (1 if config['class_dropout_prob'] > 0 else 0)
        shapes = {'x_embedder.proj.weight': (d, c, p, p), 'x_embedder.proj.bias': (d,), 't_embedder.mlp.0.weight': (d, 256), 't_embedder.mlp.0.bias': (d,), 't_embedder.mlp.2.weight': (d, d), 't_embedder.mlp.2.bias': (d,), 'y_embedder.embedding_table.weight': (rows, d)}
        for i in range(config['depth']):
            for name, shape in {'attn.qkv': (3 * d, d), 'attn.proj': (d, d), 'mlp.fc1': (hidden, d), 'mlp.fc2': (d, hidden), 'adaLN_modulation.1': (6 * d, d)}.items():
                shapes |= {f'blocks.{i}.{name}.weight': shape, f'blocks.{i}.{name}.bias': shape[:1]}
        shapes |= {'final_layer.linear.weight': (p * p * self.out_channels, d), 'final_layer.linear.bias': (p * p * self.out_channels,), 'final_layer.adaLN_modulation.1.weight': (2 * d, d), 'final_layer.adaLN_modulation.1.bias': (2 * d,)}
        self.w = {name: (torch.randn(shape, generator=g) * (0.1 if len(shape) == 1 else 0.7 / math.sqrt(np.prod(shape[1:])))).requires_grad_() for name, shape in shapes.items()}
        self.w['pos_embed'] = torch.tensor(positions(d, config['input_size'] // p), dtype=torch.float32)[None]

    def linear(self, name, x):
        return F.linear(x, self.w[f'{name}.weight'], self.w[f'{name}.bias'])

    def patches(self, x):
        return F.conv2d(x, self.w['x_embedder.proj.weight'], self.w['x_embedder.proj.bias'], stride=self.config['patch_size']).flatten(2).transpose(1, 2)

    def times(self, t):
        return self.linear('t_embedder.mlp.2', F.silu(self.linear('t_embedder.mlp.0', sines(t, 256))))

    def block(self, i, x, c):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.linear(f'blocks.{i}.adaLN_modulation.1', F.silu(c)).chunk(6, 1)
        n, t, d = x.shape
        heads = self.config['num_heads']
        q, k, v = self.linear(f'blocks.{i}.attn.qkv', modulated(x, shift1, scale1)).view(n, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-1, -2)) * (d // heads) ** -0.5).softmax(-1) @ v
        x = x + gate1[:, None] * self.linear(f'blocks.{i}.attn.proj', mixed.transpose(1, 2).reshape(n, t, d))
        h = self.linear(f'blocks.{i}.mlp.fc1', modulated(x, shift2, scale2))
        return x + gate2[:, None] * self.linear(f'blocks.{i}.mlp.fc2', 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h ** 3))))

    def forward(self, x, t, y, inputs=None, outputs=None, masks=None, only=None):
        c = self.times(t) + self.w['y_embedder.embedding_table.weight'][y.long()]
        h = self.patches(x) + self.w['pos_embed']
        for i in range(self.config['depth']) if only is None else only:
            if inputs is not None:
                inputs.append(h)
            out = self.block(i, h, c)
            h = out if masks is None else out * masks[i][:, None, None] + h * (1 - masks[i][:, None, None])
            if outputs is not None:
                outputs.append(h)
        shift, scale = self.linear('final_layer.adaLN_modulation.1', F.silu(c)).chunk(2, 1)
        h = self.linear('final_layer.linear', modulated(h, shift, scale))
        p, grid = self.config['patch_size'], self.config['input_size'] // self.config['patch_size']
        image = h.view(-1, grid, grid, p, p, self.out_channels).permute(0, 5, 1, 3, 2, 4).reshape(-1, self.out_channels, grid * p, grid * p)
        return image[:, :self.config['in_channels']] if self.is_sit and self.config['learn_sigma'] else image

    def guided(self, x, t, y, scale):
        half = x[:len(x) // 2]
        out = self.forward(torch.cat([half, half]), t, y)
        kind, rest = out[:, :3], out[:, 3:]
        cond, uncond = kind.chunk(2)
        eps = uncond + scale * (cond - uncond)
        return torch.cat([torch.cat([eps, eps]), rest], 1)

    def stored(self):
        return {f'w.{name}': value for name, value in self.w.items()}

    def gradients(self, loss, inputs=(), **names):
        wanted = {f'grad.{name}': value for name, value in self.w.items() if value.requires_grad} | names
        found = torch.autograd.grad(loss, wanted.values(), allow_unused=True)
        return {name: grad for name, grad in zip(wanted, found) if grad is not None}


def model(size=4, patch=2, channels=4, width=16, depth=1, heads=2, classes=5, sigma=True, dropout=0.1, ratio=4.0):
    return {'input_size': size, 'patch_size': patch, 'in_channels': channels, 'hidden_size': width, 'depth': depth, 'num_heads': heads, 'num_classes': classes, 'learn_sigma': sigma, 'class_dropout_prob': dropout, 'mlp_ratio': ratio}


MODELS = {
    'nodropout': model(size=6, patch=3, channels=3, width=20, depth=3, heads=5, classes=4, sigma=False, dropout=0.0, ratio=2.0),
    'deep': model(size=4, patch=1, channels=2, width=12, depth=6, heads=1, classes=17, sigma=True, dropout=0.5),
    'odd': model(size=10, patch=2, channels=5, width=36, depth=1, heads=9, classes=2, sigma=True, ratio=3.0),
    'one_token': model(size=2, patch=2, channels=4, width=8, depth=2, heads=2, classes=3, sigma=False),
}


def transformers(folder, seed):
    for family in ['dit', 'sit_forward']:
        for i, (name, config) in enumerate(MODELS.items()):
            g = torch.Generator().manual_seed(seed + 10 * i)
            net = Transformer(config, seed + i, family != 'dit')
            n, side, c = 3, config['input_size'], config['in_channels']
            rows = len(net.w['y_embedder.embedding_table.weight'])
            x = torch.randn(n, c, side, side, generator=g).requires_grad_()
            t = torch.rand(n, generator=g) * (999 if family == 'dit' else 1)
            y = torch.randint(0, rows, (n,), generator=g)
            y[-1] = rows - 1
            outputs = []
            out = net.forward(x, t, y, outputs=outputs)
            loss = (out ** 2).mean()
            tensors = net.stored() | {'in.x': x, 'in.t': t, 'in.y': y, 'out.patch': net.patches(x), 'out.t_emb': net.times(t), 'out.y': out, 'out.loss': loss} | {f'out.block.{j}': h for j, h in enumerate(outputs)} | net.gradients(loss, **{'grad.in.x': x})
            z = torch.randn(2, c, side, side, generator=g)
            labels = torch.cat([torch.randint(0, config['num_classes'], (2,), generator=g), torch.full((2,), rows - 1)])
            times = torch.tensor([0.3, 0.8, 0.3, 0.8]) * (900 if family == 'dit' else 1)
            tensors |= {'in.cfg_x': torch.cat([z, z]), 'in.cfg_t': times, 'in.cfg_y': labels, 'out.cfg': net.guided(torch.cat([z, z]), times, labels, 2.5)}
            if config['class_dropout_prob'] > 0:
                u, given = torch.rand(n, generator=g), torch.randint(0, config['num_classes'], (n,), generator=g)
                u[0] = 0.01
                kept = torch.where(u < config['class_dropout_prob'], torch.tensor(config['num_classes']), given)
                tensors |= {'in.drop_rand': u, 'in.train_y': given, 'out.train_y': net.forward(x, t, kept)}
            write(folder, f'{family}_{name}', {'model': config, 'cfg_scale': 2.5}, tensors)
    t = torch.tensor([0.0, 0.25, 17.0, 999.0, 1000.0])
    pos = [{'dim': 24, 'grid': 3, 'rows': None}, {'dim': 768, 'grid': 7, 'rows': [0, 6, 48]}]
    tensors = {'in.t': t} | {f'out.temb.{dim}': sines(t, dim, 5000) for dim in [2, 33, 128]} | {f"out.pos.{e['dim']}.{e['grid']}": positions(e['dim'], e['grid'])[e['rows'] or slice(None)].astype(np.float32) for e in pos} | {'out.pos_cls': positions(8, 3, 2).astype(np.float32)}
    write(folder, 'embeddings', {'timestep_dims': [2, 33, 128], 'max_period': 5000, 'pos': pos, 'pos_cls': {'dim': 8, 'grid': 3, 'extra_tokens': 2}}, tensors)


def gates(folder, seed):
    for name, groups, tau, scaling in [('2_3', [[2, 3], [2, 3]], 0.7, 10.0), ('mixed', [[1, 4], [3, 3], [1, 2]], 3.0, 50.0)]:
        config = model(depth=sum(m for _, m in groups), width=12, heads=3)
        net = Transformer(config, seed + 70)
        g = torch.Generator().manual_seed(seed + 71)
        n = 5
        x, t, y = torch.randn(n, 4, 4, 4, generator=g), torch.rand(n, generator=g) * 999, torch.randint(0, 6, (n,), generator=g)
        tensors, masks, decision, confidence, logits = {}, [], [], [], []
        at = 0
        for i, (keep, of) in enumerate(groups):
            options = list(itertools.combinations(range(of), keep))
            table = torch.tensor([[float(j in option) for j in range(of)] for option in options])
            gate = (torch.randn(len(options), generator=g) * 0.05).requires_grad_()
            gumbel = -torch.log(torch.empty(n, len(options)).exponential_(generator=g))
            soft = ((gate * scaling + gumbel) / tau).softmax(-1)
            hard = F.one_hot(soft.argmax(-1), len(options)).float()
            chosen = hard - soft.detach() + soft
            mask = chosen @ table
            masks += list(mask.unbind(1))
            best = int(gate.argmax())
            decision += [at + j for j in options[best]]
            confidence.append(float((gate * scaling).softmax(-1).max()))
            logits.append(gate)
            tensors |= {f'w.gumbel_gates.{i}': gate[None], f'in.gumbel.{i}': gumbel, f'out.gate.{i}': hard, f'out.mask.{i}': hard @ table, f'out.options.{i}': table}
            at += of
        inputs = []
        out = net.forward(x, t, y, inputs=inputs, masks=masks)
        loss = (out ** 2).mean()
        tensors |= net.stored() | {'in.x': x, 'in.t': t, 'in.y': y, 'out.y': out, 'out.loss': loss, 'out.pruned_y': net.forward(x, t, y, only=decision)} | {f'out.block_in.{j}': h for j, h in enumerate(inputs)}
        tensors |= net.gradients(loss, **{f'grad.gumbel_gates.{i}': gate for i, gate in enumerate(logits)})
        write(folder, f'tinyfusion_gates_{name}', {'model': config, 'groups': groups, 'tau': tau, 'scaling': scaling, 'decision': decision, 'confidence': confidence}, tensors)


# the Gaussian process -------------------------------------------------------------------------------------------------

def schedule(name, steps):
    if name == 'linear':
        return np.linspace(1000 / steps * 1e-4, 1000 / steps * 0.02, steps, dtype=np.float64)
    bar = lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.array([min(1 - bar((i + 1) / steps) / bar(i / steps), 0.999) for i in range(steps)])


def spaced(steps, text):
    if text == '':
        return list(range(steps))
    if text.startswith('ddim'):
        return next(list(range(0, steps, stride)) for stride in range(1, steps) if len(range(0, steps, stride)) == int(text[4:]))
    parts = [int(part) for part in text.split(',')]
    kept, start = [], 0
    for i, count in enumerate(parts):
        size = steps // len(parts) + (1 if i < steps % len(parts) else 0)
        stride = 1 if count <= 1 else (size - 1) / (count - 1)
        at = 0.0
        for _ in range(count):
            kept.append(start + round(at))
            at += stride
        start += size
    return sorted(set(kept))


def process(name, steps, respacing):
    kept = spaced(steps, respacing)
    betas, last = [], 1.0
    for bar in np.cumprod(1 - schedule(name, steps))[kept]:
        betas.append(1 - bar / last)
        last = bar
    betas = np.array(betas)
    return kept, betas


def tables(betas, kept):
    bar = np.cumprod(1 - betas)
    before, after = np.append(1.0, bar[:-1]), np.append(bar[1:], 0.0)
    variance = betas * (1 - before) / (1 - bar)
    return {'betas': betas, 'alphas_cumprod': bar, 'alphas_cumprod_prev': before, 'alphas_cumprod_next': after, 'sqrt_alphas_cumprod': np.sqrt(bar), 'sqrt_one_minus_alphas_cumprod': np.sqrt(1 - bar), 'log_one_minus_alphas_cumprod': np.log(1 - bar), 'sqrt_recip_alphas_cumprod': np.sqrt(1 / bar), 'sqrt_recipm1_alphas_cumprod': np.sqrt(1 / bar - 1), 'posterior_variance': variance, 'posterior_log_variance_clipped': np.log(np.append(variance[1], variance[1:])), 'posterior_mean_coef1': betas * np.sqrt(before) / (1 - bar), 'posterior_mean_coef2': (1 - before) * np.sqrt(1 - betas) / (1 - bar), 'timestep_map': np.array(kept)}


def gaussian(folder, seed):
    for name, kind, steps, respacing in [('cosine500', 'squaredcos_cap_v2', 500, ''), ('sections', 'linear', 1000, '5,7,11'), ('cosine_ddim', 'squaredcos_cap_v2', 1000, 'ddim20')]:
        kept, betas = process(kind, steps, respacing) if respacing else (list(range(steps)), schedule(kind, steps))
        if respacing == '':
            _, betas = process(kind, steps, '')
        t = tables(betas, kept)
        rows = [0, 1, len(kept) // 2, len(kept) - 1]
        write(folder, f'gaussian_constants_{name}', {'noise_schedule': kind, 'diffusion_steps': steps, 'timestep_respacing': respacing}, {f'out.{key}': value.astype(np.int32 if key == 'timestep_map' else np.float32) for key, value in t.items()}, float64=json.dumps({'rows': rows, 'values': {key: [float(value[r]) for r in rows] for key, value in t.items() if key != 'timestep_map'}}))
    cases = [(1000, '100'), (1000, 'ddim100'), (4000, '250'), (1000, '3,3,3,3'), (50, '50'), (250, '1,1'), (1000, 'ddim1000')]
    tensors = {}
    for i, (steps, respacing) in enumerate(cases):
        kept, betas = process('linear', steps, respacing)
        tensors |= {f'out.map.{i}': np.array(kept), f'out.betas.{i}': betas.astype(np.float32)}
    write(folder, 'gaussian_respacing', {'cases': [{'diffusion_steps': s, 'respacing': r} for s, r in cases], 'noise_schedule': 'linear'}, tensors)

    for name, kind, respacing, sampler, eta, scale, clip, sigma, start in [('ddpm6', 'linear', '6', 'ddpm', None, 2.0, True, True, False), ('ddim_eta1', 'squaredcos_cap_v2', '5', 'ddim', 1.0, None, True, False, False), ('ddpm_start', 'linear', '3,3', 'ddpm', None, None, False, True, True), ('ddim_start', 'linear', '7', 'ddim', 0.0, 3.0, True, True, True)]:
        config = model(channels=4, depth=2, width=16, sigma=sigma, heads=4)
        net = Transformer(config, seed + 40)
        kept, betas = process(kind, 1000, respacing)
        t = tables(betas, kept)
        g = torch.Generator().manual_seed(seed + 41)
        n = 2
        z = torch.randn(n, 4, 4, 4, generator=g)
        y = torch.randint(0, 5, (n,), generator=g)
        if scale is not None:
            z, y = torch.cat([z, z]), torch.cat([y, torch.full((n,), 5)])
        x, noises, samples, starts = z, [], [], []
        with torch.no_grad():
            for i in reversed(range(len(kept))):
                times = torch.full((len(x),), float(kept[i]))
                out = net.forward(x, times, y) if scale is None else net.guided(x, times, y, scale)
                eps, part = out[:, :4], out[:, 4:]
                predicted = eps if start else t['sqrt_recip_alphas_cumprod'][i] * x - t['sqrt_recipm1_alphas_cumprod'][i] * eps
                predicted = predicted.clamp(-1, 1) if clip else predicted
                noise = torch.randn(x.shape, generator=g)
                bar, before = t['alphas_cumprod'][i], t['alphas_cumprod_prev'][i]
                if sampler == 'ddpm':
                    mean = t['posterior_mean_coef1'][i] * predicted + t['posterior_mean_coef2'][i] * x
                    share = (part + 1) / 2
                    low, high = t['posterior_log_variance_clipped'][i], math.log(betas[i])
                    log_variance = share * high + (1 - share) * low if sigma else torch.full_like(mean, math.log(t['posterior_variance'][1] if i == 0 else betas[i]))
                    x = mean + (0.5 * log_variance).exp() * noise * (i > 0)
                else:
                    again = (t['sqrt_recip_alphas_cumprod'][i] * x - predicted) / t['sqrt_recipm1_alphas_cumprod'][i]
                    s = eta * math.sqrt((1 - before) / (1 - bar)) * math.sqrt(1 - bar / before)
                    x = predicted * math.sqrt(before) + math.sqrt(1 - before - s * s) * again + s * noise * (i > 0)
                noises.append(noise), samples.append(x), starts.append(predicted)
        settings = {'timestep_respacing': respacing, 'noise_schedule': kind, 'use_kl': False, 'sigma_small': False, 'predict_xstart': start, 'learn_sigma': sigma, 'rescale_learned_sigmas': False, 'diffusion_steps': 1000}
        write(folder, f'gaussian_sample_{name}', {'model': config, 'process': settings, 'sampler': sampler, 'eta': eta, 'cfg_scale': scale, 'clip_denoised': clip}, net.stored() | {'in.z': z, 'in.y': y, 'in.noise': torch.stack(noises), 'out.samples': torch.stack(samples), 'out.pred_xstart': torch.stack(starts)})


def distillation(folder, seed):
    kept, betas = process('linear', 1000, '')
    t = {key: torch.tensor(value, dtype=torch.float32) for key, value in tables(betas, kept).items()}
    at = lambda name, steps: t[name][steps][:, None, None, None]
    flat = lambda x: x.flatten(1).mean(1)
    cdf = lambda x: 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))

    def moments(out, x, steps):
        """Mean and log variance of the reverse step that a model predicts."""
        eps, part = out.chunk(2, 1)
        start = at('sqrt_recip_alphas_cumprod', steps) * x - at('sqrt_recipm1_alphas_cumprod', steps) * eps
        mean = at('posterior_mean_coef1', steps) * start + at('posterior_mean_coef2', steps) * x
        share = (part + 1) / 2
        return mean.detach(), share * at('betas', steps).log() + (1 - share) * at('posterior_log_variance_clipped', steps)

    def bits(mean1, log1, mean2, log2, x0, steps):
        """KL of Gaussians in bits, and at t = 0 what it takes to say which of 256 values a pixel has."""
        kl = 0.5 * (-1 + log2 - log1 + (log1 - log2).exp() + (mean1 - mean2) ** 2 * (-log2).exp())
        scale, centred = (-0.5 * log2).exp(), x0 - mean2
        above, below = cdf(scale * (centred + 1 / 255)), cdf(scale * (centred - 1 / 255))
        log = lambda p: p.clamp(min=1e-12).log()
        likelihood = torch.where(x0 < -0.999, log(above), torch.where(x0 > 0.999, log(1 - below), log(above - below)))
        return torch.where(steps == 0, flat(-likelihood), flat(kl)) / math.log(2)

    for name, sigma, mapping, alpha, beta, depths in [('three', True, [[0, 0], [1, 2], [2, 4]], 0.7, 0.05, (3, 6)), ('fixed', False, [[1, 3]], 1.0, 0.2, (2, 5))]:
        student, teacher = [Transformer(model(depth=depth, width=24, heads=heads, sigma=sigma, classes=6), seed + 80 + depth) for depth, heads in zip(depths, (3, 3))]
        g = torch.Generator().manual_seed(seed + 90)
        n = 4
        x0 = torch.rand(n, 4, 4, 4, generator=g) * 2.4 - 1.2
        x0, noise = x0.clamp(-1, 1), torch.randn(n, 4, 4, 4, generator=g)
        steps, y = torch.tensor([0, 1, 400, 999]), torch.randint(0, 7, (n,), generator=g)
        x = at('sqrt_alphas_cumprod', steps) * x0 + at('sqrt_one_minus_alphas_cumprod', steps) * noise
        features = [[], []]
        own = student.forward(x, steps.float(), y, outputs=features[0])
        with torch.no_grad():
            theirs = teacher.forward(x, steps.float(), y, outputs=features[1])
        out, feature = {}, 0
        for s, i in mapping:
            masked = []
            for side, layer, h in [('student', s, features[0][s]), ('teacher', i, features[1][i])]:
                rows = h.detach().flatten(1)
                mask = ((rows - rows.mean(1, keepdim=True)).abs() < 2 * rows.var(1, keepdim=True).sqrt()).float().view_as(h)
                out |= {f'out.feature.{side}.{layer}': h, f'out.mask.{side}.{layer}': mask}
                masked.append(h * mask)
            feature = feature + ((masked[0] - masked[1]) ** 2).flatten(1).mean(1) / len(mapping)
        if sigma:
            mse, kd = flat((own[:, :4] - noise) ** 2), flat((own[:, :4] - theirs[:, :4]) ** 2)
            truth = at('posterior_mean_coef1', steps) * x0 + at('posterior_mean_coef2', steps) * x
            mean, log = moments(torch.cat([own[:, :4].detach(), own[:, 4:]], 1), x, steps)
            mean2, log2 = moments(theirs, x, steps)
            truth_part = mse + bits(truth, at('posterior_log_variance_clipped', steps), mean, log, x0, steps)
            kd = kd + bits(mean2, log2, mean, log, x0, steps)
        else:
            mse, kd = flat((own - noise) ** 2), flat((own - theirs) ** 2)
            truth_part = mse
        plain = alpha * kd + (1 - alpha) * truth_part
        loss = plain + beta * feature
        out |= {'out.mse': mse, 'out.gt': truth_part, 'out.kd_loss': kd, 'out.feat_loss': feature, 'out.loss': loss, 'out.plain.loss': plain}
        parameters = {key: value for key, value in student.w.items() if value.requires_grad}
        for prefix, value in [('grad.', loss), ('grad.feat.', feature)]:
            found = torch.autograd.grad(value.mean(), parameters.values(), retain_graph=True, allow_unused=True)
            out |= {prefix + key: grad for key, grad in zip(parameters, found) if grad is not None}
        weights = {f'w.{side}.{key}': value for side, net in [('student', student), ('teacher', teacher)] for key, value in net.w.items()}
        write(folder, f'tinyfusion_kd_{name}', {'student': student.config, 'teacher': teacher.config, 'mapping': mapping, 'learn_sigma': sigma, 'alpha_kd': alpha, 'beta_feat': beta, 'train': False}, weights | out | {'in.x0': x0, 'in.noise': noise, 'in.t': steps, 'in.y': y})


# autoencoders -----------------------------------------------------------------------------------------------------------

def autoencoders(folder, seed):
    for name, ch, mult, blocks, resolution, embed, at_encoder, at_decoder, channels in [('attention', 32, [1, 2, 3], 1, 16, 3, [16, 4], [8], 3), ('grey', 64, [1], 2, 8, 5, [], [8], 1)]:
        g = torch.Generator().manual_seed(seed + 200 + ch)
        w = {}

        def conv(key, a, b, k=3):
            w[f'{key}.weight'] = (torch.randn(b, a, k, k, generator=g) / math.sqrt(a * k * k)).requires_grad_()
            w[f'{key}.bias'] = (torch.randn(b, generator=g) * 0.1).requires_grad_()

        def norm(key, a):
            w[f'{key}.weight'], w[f'{key}.bias'] = 1 + torch.randn(a, generator=g) * 0.1, torch.randn(a, generator=g) * 0.1

        def resnet(key, a, b):
            norm(f'{key}.norm1', a), conv(f'{key}.conv1', a, b), norm(f'{key}.norm2', b), conv(f'{key}.conv2', b, b)
            if a != b:
                conv(f'{key}.nin_shortcut', a, b, 1)

        def attention(key, a):
            norm(f'{key}.norm', a)
            for part in ['q', 'k', 'v', 'proj_out']:
                conv(f'{key}.{part}', a, a, 1)

        def middle(key, a):
            resnet(f'{key}.block_1', a, a), attention(f'{key}.attn_1', a), resnet(f'{key}.block_2', a, a)

        widths, levels = [ch * m for m in mult], len(mult)
        conv('encoder.conv_in', channels, ch)
        for i, width in enumerate(widths):
            for j in range(blocks):
                resnet(f'encoder.down.{i}.block.{j}', (widths[i - 1] if i else ch) if j == 0 else width, width)
                if resolution // 2 ** i in at_encoder:
                    attention(f'encoder.down.{i}.attn.{j}', width)
            if i < levels - 1:
                conv(f'encoder.down.{i}.downsample.conv', width, width)
        middle('encoder.mid', widths[-1]), norm('encoder.norm_out', widths[-1]), conv('encoder.conv_out', widths[-1], 2 * embed)
        conv('decoder.conv_in', embed, widths[-1]), middle('decoder.mid', widths[-1])
        last = widths[-1]
        for i in reversed(range(levels)):
            for j in range(blocks + 1):
                resnet(f'decoder.up.{i}.block.{j}', last, widths[i])
                last = widths[i]
                if resolution // 2 ** i in at_decoder:
                    attention(f'decoder.up.{i}.attn.{j}', last)
            if i > 0:
                conv(f'decoder.up.{i}.upsample.conv', last, last)
        norm('decoder.norm_out', last), conv('decoder.conv_out', last, channels)
        conv('quant_conv', 2 * embed, 2 * embed, 1), conv('post_quant_conv', embed, embed, 1)

        run = lambda key, x, **more: F.conv2d(x, w[f'{key}.weight'], w[f'{key}.bias'], **more)
        normed = lambda key, x: F.group_norm(x, 32, w[f'{key}.weight'], w[f'{key}.bias'], eps=1e-6)

        def through(key, x):
            h = run(f'{key}.conv2', F.silu(normed(f'{key}.norm2', run(f'{key}.conv1', F.silu(normed(f'{key}.norm1', x)), padding=1))), padding=1)
            return h + (run(f'{key}.nin_shortcut', x) if f'{key}.nin_shortcut.weight' in w else x)

        def mixed(key, x):
            h = normed(f'{key}.norm', x)
            q, k, v = [run(f'{key}.{part}', h).flatten(2) for part in 'qkv']
            scores = (q.transpose(1, 2) @ k * x.shape[1] ** -0.5).softmax(-1)
            return x + run(f'{key}.proj_out', (v @ scores.transpose(1, 2)).view_as(x))

        def stack(side, i, h, count):
            for j in range(count):
                h = through(f'{side}.{i}.block.{j}', h)
                if f'{side}.{i}.attn.{j}.q.weight' in w:
                    h = mixed(f'{side}.{i}.attn.{j}', h)
            return h

        middle_of = lambda side, h: through(f'{side}.mid.block_2', mixed(f'{side}.mid.attn_1', through(f'{side}.mid.block_1', h)))

        def encode(x):
            h = run('encoder.conv_in', x, padding=1)
            for i in range(levels):
                h = stack('encoder.down', i, h, blocks)
                if i < levels - 1:
                    h = run(f'encoder.down.{i}.downsample.conv', F.pad(h, (0, 1, 0, 1)), stride=2)
            h = run('encoder.conv_out', F.silu(normed('encoder.norm_out', middle_of('encoder', h))), padding=1)
            return run('quant_conv', h).chunk(2, 1)

        def decode(z):
            h = middle_of('decoder', run('decoder.conv_in', run('post_quant_conv', z), padding=1))
            for i in reversed(range(levels)):
                h = stack('decoder.up', i, h, blocks + 1)
                if i > 0:
                    h = run(f'decoder.up.{i}.upsample.conv', F.interpolate(h, scale_factor=2.0, mode='nearest'), padding=1)
            return run('decoder.conv_out', F.silu(normed('decoder.norm_out', h)), padding=1)

        x = (torch.rand(2, channels, resolution, resolution + 4 * (levels > 1), generator=g) * 2 - 1).requires_grad_()
        mean, log = encode(x)
        log = log.clamp(-30, 20)
        noise, z = torch.randn(mean.shape, generator=g), torch.randn(mean.shape, generator=g)
        loss = (decode(mean) ** 2).mean()
        kl = 0.5 * (mean ** 2 + log.exp() - 1 - log).sum((1, 2, 3))
        write(folder, f'vae_{name}', {'vae': {'ch': ch, 'ch_mult': mult, 'num_res_blocks': blocks, 'resolution': resolution, 'embed_dim': embed, 'encoder_attn_resolutions': at_encoder, 'decoder_attn_resolutions': at_decoder}, 'weights': {'kind': 'stored'}}, {f'w.{key}': value for key, value in w.items()} | {'in.x': x, 'in.z': z, 'in.posterior_noise': noise, 'out.mean': mean, 'out.logvar': log, 'out.sample': mean + (0.5 * log).exp() * noise, 'out.kl': kl, 'out.decoded': decode(z), 'out.recon_loss': loss, 'grad.in.x': torch.autograd.grad(loss, x)[0]})


# metrics, images, streams, the optimiser ---------------------------------------------------------------------------------

def metrics(folder, seed):
    import scipy.linalg
    for name, n1, n2, d, classes, k, splits, subset in [('n70_d90', 70, 55, 90, 12, 2, 7, 30), ('n500_d24', 500, 410, 24, 100, 4, 5, 200)]:
        rng = np.random.RandomState(seed + d)
        mix = rng.randn(d, d) / math.sqrt(d)
        sets = [np.maximum(rng.randn(n, d) @ mix + shift, 0).astype(np.float32) for n, shift in [(n1, 0.1), (n2, 0.25)]]
        spatial = [(rng.randn(n, 35) @ rng.randn(35, 35) * 0.2 + shift).astype(np.float32) for n, shift in [(n1, 0.0), (n2, 0.1)]]

        def frechet(a, b):
            a, b = a.astype(np.float64), b.astype(np.float64)
            s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
            singular = scipy.linalg.svd(root(s1) @ root(s2), compute_uv=False)
            return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * singular.sum())

        def root(s):
            values, vectors = np.linalg.eigh(s)
            return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T

        logits = (sets[0] @ rng.randn(d, classes)).astype(np.float32)
        permutation = np.random.RandomState(2020).permutation(n1)

        def score(rows, parts):
            p = np.exp(rows.astype(np.float64) - rows.max(1, keepdims=True).astype(np.float64))
            p /= p.sum(1, keepdims=True)
            found = []
            for i in range(parts):
                part = p[i * len(p) // parts:(i + 1) * len(p) // parts]
                found.append(np.exp((part * (np.log(part) - np.log(part.mean(0, keepdims=True)))).sum(1).mean()))
            return float(np.mean(found)), float(np.std(found))

        chosen = [np.stack([rng.choice(n, subset, replace=False) for _ in range(5)]) for n in (n1, n2)]
        discrepancies = []
        for i, j in zip(*chosen):
            a, b = sets[0][i].astype(np.float64), sets[1][j].astype(np.float64)
            kernel = lambda u, v: (u @ v.T / d + 1) ** 3
            aa, bb, ab = kernel(a, a), kernel(b, b), kernel(a, b)
            discrepancies.append((aa.sum() - np.trace(aa) + bb.sum() - np.trace(bb)) / (subset * (subset - 1)) - 2 * ab.mean())

        def squared(a, b):
            return ((a.astype(np.float64)[:, None] - b.astype(np.float64)[None]) ** 2).sum(-1)

        def manifold(real, fake, neighbours):
            radius = np.sort(squared(real, real), 1)[:, neighbours]
            return float((squared(fake, real) <= radius[None]).any(1).mean())

        values = {'fid_float64': frechet(*sets), 'fid_torch_fidelity': frechet(*sets), 'sfid': frechet(*spatial), 'isc_guided_diffusion': score(logits, 1)[0], 'kid_mean': float(np.mean(discrepancies)), 'kid_std': float(np.std(discrepancies))}
        values['isc_mean'], values['isc_std'] = score(logits[permutation], splits)
        values['isc_noshuffle_mean'], values['isc_noshuffle_std'] = score(logits, splits)
        for suffix, neighbours in [('', k), ('_k5', 5)]:
            values |= {f'precision{suffix}': manifold(sets[1], sets[0], neighbours), f'recall{suffix}': manifold(sets[0], sets[1], neighbours)}
        tensors = {'in.logits': logits, 'in.isc_permutation': permutation, 'in.kid_idx_1': chosen[0], 'in.kid_idx_2': chosen[1]}
        for i in (0, 1):
            tensors |= {f'in.features_{i + 1}': sets[i], f'in.spatial_{i + 1}': spatial[i], f'out.mu_{i + 1}': sets[i].mean(0, dtype=np.float64).astype(np.float32), f'out.sigma_{i + 1}': np.cov(sets[i].astype(np.float64), rowvar=False).astype(np.float32)}
        write(folder, f'metrics_{name}', {'dim': d, 'classes': classes, 'isc': {'splits': splits}, 'prc': {'k': k}}, tensors, values=json.dumps(values))


def images(folder, seed):
    from PIL import Image
    for name, height, width, sizes in [('portrait', 333, 177, [32, 80]), ('tiny', 5, 9, [16]), ('large', 700, 1001, [64, 256])]:
        pixels = np.random.RandomState(seed + height).randint(0, 256, (height // 4 + 1, width // 4 + 1, 3)).astype(np.uint8)
        pixels = np.kron(pixels, np.ones((4, 4, 1), np.uint8))[:height, :width]
        pixels = (pixels // 2 + np.random.RandomState(seed).randint(0, 128, pixels.shape)).astype(np.uint8)
        tensors, steps = {'in.image': pixels}, {}
        for size in sizes:
            image, halvings = Image.fromarray(pixels), 0
            while min(image.size) >= 2 * size:
                image = image.resize(tuple(side // 2 for side in image.size), resample=Image.BOX)
                halvings += 1
            box = image.size
            scale = size / min(image.size)
            image = image.resize(tuple(round(side * scale) for side in image.size), resample=Image.BICUBIC)
            array = np.array(image)
            top, left = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
            crop = array[top:top + size, left:left + size]
            steps[size] = {'halvings': halvings, 'box_size_hw': box[::-1], 'bicubic_size_hw': image.size[::-1]}
            tensors |= {f'out.bicubic.{size}': array, f'out.crop.{size}': crop, f'out.normalized.{size}': ((crop.transpose(2, 0, 1).astype(np.float32) / 255) - 0.5) / 0.5}
        write(folder, f'preprocess_{name}', {'height': height, 'width': width, 'sizes': sizes, 'steps': steps}, tensors)


def streams(folder, seed):
    seeds, sizes = [1, 7, 123456789, 2 ** 32 - 1], [3, 14, 18, 31, 32, 64, 1001]
    sequence = ['rand(5)', 'randn(3)', 'randint(0,7,(9,))', 'randn(2,17)', 'randperm(6)', 'randn(1)', 'exponential_(4)', 'randn(16)']
    tensors = {}
    for s in seeds:
        for n in sizes:
            tensors[f'out.randn.{s}.{n}'] = torch.manual_seed(s) and torch.randn(n)
            tensors[f'out.rand.{s}.{n}'] = torch.manual_seed(s) and torch.rand(n)
        tensors[f'out.randint1000.{s}'] = torch.manual_seed(s) and torch.randint(0, 1000, (37,))
        tensors[f'out.randperm.{s}'] = torch.manual_seed(s) and torch.randperm(41)
        tensors[f'out.exponential.{s}'] = torch.manual_seed(s) and torch.empty(23).exponential_()
        torch.manual_seed(s)
        for i, call in enumerate([lambda: torch.rand(5), lambda: torch.randn(3), lambda: torch.randint(0, 7, (9,)), lambda: torch.randn(2, 17), lambda: torch.randperm(6), lambda: torch.randn(1), lambda: torch.empty(4).exponential_(), lambda: torch.randn(16)]):
            tensors[f'out.sequence.{s}.{i}'] = call()
        state = np.random.RandomState(s)
        tensors[f'out.numpy_permutation.{s}'] = state.permutation(29)
        tensors[f'out.numpy_choice.{s}'] = state.choice(50, 20, replace=False)
        shuffled = np.arange(33)
        np.random.RandomState(s).shuffle(shuffled)
        tensors[f'out.numpy_shuffle.{s}'] = shuffled
    write(folder, 'rng_torch_cpu', {'seeds': seeds, 'sizes': sizes, 'sequence': sequence}, tensors)


def optimizer(folder, seed):
    config = {'lr': 1e-3, 'weight_decay': 0.05, 'betas': [0.8, 0.95], 'eps': 1e-6, 'clip_grad_norm': 0.5, 'steps': 6, 'scheduler': {'kind': 'CosineAnnealingLR', 'T_max': 6, 'eta_min': 1e-5}, 'ema_decay': 0.9}
    torch.manual_seed(seed)
    parameters = {'a': nn.Parameter(torch.randn(4, 7)), 'b': nn.Parameter(torch.randn(11)), 'c': nn.Parameter(torch.randn(2, 3, 2))}
    tensors = {f'w.{name}': p.detach().clone() for name, p in parameters.items()}
    adam = torch.optim.AdamW(parameters.values(), lr=config['lr'], weight_decay=config['weight_decay'], betas=config['betas'], eps=config['eps'])
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=6, eta_min=1e-5)
    averages = {name: p.detach().clone() for name, p in parameters.items()}
    kept = {}
    for _ in range(config['steps']):
        for name, p in parameters.items():
            p.grad = torch.randn_like(p) * 0.3
            kept.setdefault(f'in.grad.{name}', []).append(p.grad.clone())
        kept.setdefault('out.grad_norm', []).append(nn.utils.clip_grad_norm_(parameters.values(), config['clip_grad_norm']))
        kept.setdefault('out.lr', []).append(torch.tensor(adam.param_groups[0]['lr']))
        adam.step(), rates.step()
        for name, p in parameters.items():
            averages[name].mul_(config['ema_decay']).add_(p.detach(), alpha=1 - config['ema_decay'])
            kept.setdefault(f'out.param.{name}', []).append(p.detach().clone())
            kept.setdefault(f'out.ema.{name}', []).append(averages[name].clone())
    tensors |= {name: torch.stack(values) for name, values in kept.items()}
    for name, p in parameters.items():
        tensors |= {f'out.exp_avg.{name}': adam.state[p]['exp_avg'], f'out.exp_avg_sq.{name}': adam.state[p]['exp_avg_sq']}
    write(folder, 'optimizer_adamw', config, tensors)


if __name__ == '__main__':
    torch.set_num_threads(1)
    out, first = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 9000
    out.mkdir(parents=True, exist_ok=True)
    for make in [transformers, gates, gaussian, distillation, autoencoders, metrics, images, streams, optimizer]:
        make(out, first)
