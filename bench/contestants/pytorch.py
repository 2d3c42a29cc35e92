# PyTorch's contestant: the same models with the same numbers. One line in, one answer out, as turns.mjs has it.
import json, math, sys, time
import numpy as np, torch
import torch.nn.functional as F

work = json.loads(sys.argv[1])
torch.set_num_threads(work.get("threads", 1))


def fill(name, shape, deviation):
    seed = 0x811C9DC5
    for letter in name.encode():
        seed = ((seed ^ letter) * 0x01000193) & 0xFFFFFFFF
    x = np.arange(math.prod(shape), dtype=np.uint32)
    x *= np.uint32(0x9E3779B1)
    x += np.uint32(seed)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    x ^= x >> np.uint32(16)
    out = x.astype(np.float32)
    out *= np.float32(deviation * math.sqrt(12) / 2**32)
    out -= np.float32(deviation * math.sqrt(3))
    return torch.from_numpy(out.reshape(shape))


parameters = []


def parameter(name, shape):
    deviation = 0.02 if len(shape) < 2 else 1 / math.sqrt(math.prod(shape[1:]))
    parameters.append(fill(name, shape, deviation).requires_grad_(work["work"] == "step"))
    return parameters[-1]


def linear(name, inputs, outputs):
    weight, bias = parameter(f"{name}.weight", (outputs, inputs)), parameter(f"{name}.bias", (outputs,))
    return lambda x: F.linear(x, weight, bias)


def modulated_norm(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def attention(q, k, v):
    return ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(-1) @ v


def block(name, width, heads):
    at = f"{name}." if name else ""
    qkv, proj = linear(at + "attn.qkv", width, 3 * width), linear(at + "attn.proj", width, width)
    fc1, fc2 = linear(at + "mlp.fc1", width, 4 * width), linear(at + "mlp.fc2", 4 * width, width)
    modulation = linear(at + "adaLN_modulation.1", width, 6 * width)

    def run(x, c):
        n, t, _ = x.shape
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation(F.silu(c)).chunk(6, dim=1)
        q, k, v = qkv(modulated_norm(x, shift1, scale1)).reshape(n, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + gate1.unsqueeze(1) * proj(attention(q, k, v).transpose(1, 2).reshape(n, t, width))
        return x + gate2.unsqueeze(1) * fc2(F.gelu(fc1(modulated_norm(x, shift2, scale2)), approximate="tanh"))

    return run


def model():
    width, depth, heads, size, batch, classes = work["width"], work["depth"], work["heads"], work["size"], work["batch"], work.get("classes", 1000)
    grid = size // 2
    weight, bias = parameter("x_embedder.proj.weight", (width, 4, 2, 2)), parameter("x_embedder.proj.bias", (width,))
    time1, time2 = linear("t_embedder.mlp.0", 256, width), linear("t_embedder.mlp.2", width, width)
    table = parameter("y_embedder.embedding_table.weight", (classes + 1, width))
    place = fill("pos_embed", (1, grid * grid, width), 1 / math.sqrt(grid * grid * width))
    blocks = [block(f"blocks.{i}", width, heads) for i in range(depth)]
    last, modulation = linear("final_layer.linear", width, 32), linear("final_layer.adaLN_modulation.1", width, 2 * width)
    x = fill("x", (batch, size, size, 4), 1).permute(0, 3, 1, 2)
    t = torch.tensor([(37 * i + 11) % 1000 for i in range(batch)], dtype=torch.float32)
    y = torch.tensor([(7 * i + 3) % classes for i in range(batch)])
    frequencies = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)

    def forward(x=x):
        h = F.conv2d(x, weight, bias, stride=2).flatten(2).transpose(1, 2) + place
        angles = t[:, None] * frequencies
        c = time2(F.silu(time1(torch.cat([angles.cos(), angles.sin()], dim=1)))) + F.embedding(y, table)
        for run in blocks:
            h = run(h, c)
        shift, scale = modulation(F.silu(c)).chunk(2, dim=1)
        out = last(modulated_norm(h, shift, scale)).reshape(batch, grid, grid, 2, 2, 8)
        return torch.einsum("nhwpqc->nchpwq", out).reshape(batch, 8, size, size)

    return forward


def check(x):
    return x.detach().abs().mean(dtype=torch.float64).item()


def prepare():
    kind = work["work"]
    if kind == "product":
        outer = () if work.get("batch") is None else (work["batch"],)
        m, n, k, transposed = work["m"], work["n"], work["k"], work["transposed"]
        a, b = fill("a", (*outer, m, k), 1), fill("b", (*outer, *((n, k) if transposed else (k, n))), 1)
        return lambda: a @ (b.transpose(-2, -1) if transposed else b)
    if kind == "attention":
        q, k, v = [fill(name, (work["batch"], work["heads"], work["tokens"], work["headWidth"]), 1) for name in "qkv"]
        return lambda: attention(q, k, v)
    if kind == "block":
        run = block("", work["width"], work["heads"])
        x, c = fill("x", (work["batch"], work["tokens"], work["width"]), 1), fill("c", (work["batch"], work["width"]), 1)
        return lambda: run(x, c)
    forward = model()
    if kind == "forward":
        return lambda: forward()
    if kind == "image":

        def image():
            x = fill("x", (work["batch"], work["size"], work["size"], 4), 1).permute(0, 3, 1, 2)
            for _ in range(work["steps"]):
                x = x - 0.1 * forward(x)[:, :4]
            return x

        return image
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0)

    def step():
        optimizer.zero_grad()
        loss = forward().square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return step


def answer(**values):
    print(json.dumps(values), flush=True)


with torch.inference_mode(work["work"] != "step"):
    run = prepare()
    begun = time.perf_counter()
    run()
    while time.perf_counter() - begun < 1:
        run()
    answer(ready=True, cpu=time.process_time() * 1000)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        result = run()
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        answer(value=wall * 1000, cpu=cpu * 1000, check=check(result))
