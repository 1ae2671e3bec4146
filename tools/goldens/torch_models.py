#!/usr/bin/env python3
"""Small .pt2 files that between them hold the operators that src/import/torch reads, with inputs and
what PyTorch computes from them.

    torch_models.py --out DIR            every group of operators, as export() leaves it and
                                         decomposed into core ATen
    torch_models.py --fixture FILE.pt2   the fixture of src/import/torch/model_test.cc, compressed;
                                         torch up to 2.7 writes the flat layout, later ones the other

With --out each group NAME becomes

    DIR/NAME/plain.pt2   torch.export.export(...), batch symbolic
    DIR/NAME/core.pt2    the same after run_decompositions()
    DIR/NAME/batch3.npz  "in.x" ... and "out.y" ...
    DIR/NAME/batch4.npz
"""

import argparse
import io
import json
import math
import pathlib
import zipfile

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SEED = 7


class Group(nn.Module):
    """A module out of functions of its inputs, each an output."""

    def __init__(self, functions, **tensors):
        super().__init__()
        self.functions = functions
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def group(names):
    """A Group whose forward takes exactly these arguments (export names inputs after them)."""
    scope = {"Group": Group}
    arguments = ", ".join(names)
    exec(f"class Made(Group):\n"
         f"    def forward(self, {arguments}):\n"
         f"        return {{k: f(self, {arguments}) for k, f in self.functions.items()}}\n", scope)
    return scope["Made"]


def unary():
    names = """abs neg sign floor ceil trunc sqrt rsqrt reciprocal exp expm1 log log1p log2 log10 sin
               cos tan asin acos atan sinh cosh tanh asinh atanh erf erfc sigmoid relu square frac
               isnan isinf isfinite exp2 round""".split()
    functions = {n: (lambda m, x, n=n: getattr(torch, n)(x)) for n in names}
    for n in ["relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "mish", "softplus", "elu",
              "selu", "celu", "leaky_relu", "logsigmoid", "hardshrink", "softshrink", "tanhshrink",
              "softsign", "gelu"]:
        functions["f_" + n] = lambda m, x, n=n: getattr(F, n)(4 * x - 2)
    functions |= {
        "gelu_tanh": lambda m, x: F.gelu(x, approximate="tanh"),
        "acosh": lambda m, x: torch.acosh(x + 1),
        "threshold": lambda m, x: F.threshold(x, 0.3, 9),
        "logit": lambda m, x: torch.logit(x, 1e-3),
        "clamp": lambda m, x: x.clamp(0.2, 0.6),
        "clamp_min": lambda m, x: x.clamp_min(0.4),
        "clamp_of": lambda m, x: x.clamp(max=x.mean(-1, keepdim=True)),
        "nan_to_num": lambda m, x: torch.nan_to_num(torch.log(x - 0.5)),
        "prelu": lambda m, x: F.prelu(x - 0.5, m.slope),
        "glu": lambda m, x: F.glu(x, 1),
        "to_int": lambda m, x: (x * 10 - 5).to(torch.int32),
        "to_bool": lambda m, x: (x > 0.5).to(torch.float64),
        "half": lambda m, x: (x.half() + 1).float(),
        "pow": lambda m, x: torch.cat([x ** 2, x ** 3, x ** 0.5, x ** -1, x ** -0.5, x ** 1.7], 1),
        "pow_of": lambda m, x: 2 ** x,
        "inplace": lambda m, x: (x + 1).mul_(2).add_(x).clamp_(0, 4),
    }
    made = group(["x"])(functions, slope=torch.linspace(0.1, 0.4, 6))
    return made, lambda n, rng: {"x": rng.random((n, 6), dtype=np.float32) * 0.9 + 0.05}


def binary():
    def ints(m, a, b, i, j):
        return i, j

    functions = {
        "add": lambda m, a, b, i, j: torch.add(a, b, alpha=3),
        "sub": lambda m, a, b, i, j: torch.sub(a, 2, alpha=0.5),
        "rsub": lambda m, a, b, i, j: 1 - a,
        "mul_mixed": lambda m, a, b, i, j: a * i,
        "div": lambda m, a, b, i, j: i / j,
        "div_floor": lambda m, a, b, i, j: torch.div(i, j, rounding_mode="floor"),
        "div_trunc": lambda m, a, b, i, j: torch.div(i, j, rounding_mode="trunc"),
        "div_real": lambda m, a, b, i, j: torch.div(a, b, rounding_mode="floor"),
        "floordiv": lambda m, a, b, i, j: i // 3,
        "remainder": lambda m, a, b, i, j: torch.remainder(i, j) + i % 3,
        "remainder_real": lambda m, a, b, i, j: torch.remainder(a, b),
        "fmod": lambda m, a, b, i, j: torch.fmod(a, b) + torch.fmod(i, j),
        "maximum": lambda m, a, b, i, j: torch.maximum(a, b) + torch.minimum(a, m.row),
        "fmax": lambda m, a, b, i, j: torch.fmax(torch.log(a), b),
        "atan2": lambda m, a, b, i, j: torch.atan2(a, b),
        "compare": lambda m, a, b, i, j: (a > b) | (a <= 0) & (i != j) ^ (i >= 2),
        "logical": lambda m, a, b, i, j: torch.logical_and(a, i) | torch.logical_not(j > 2),
        "bits": lambda m, a, b, i, j: (i & 6) | (j ^ 3),
        "shift": lambda m, a, b, i, j: (i << 2) >> 1,
        "not": lambda m, a, b, i, j: ~i,
        "where": lambda m, a, b, i, j: torch.where(a > 0, i, b),
        "where_number": lambda m, a, b, i, j: torch.where(a > 0, a, 0.0),
        "masked_fill": lambda m, a, b, i, j: a.masked_fill(i > 2, -math.inf),
        "lerp": lambda m, a, b, i, j: torch.lerp(a, b, 0.3),
        "addcmul": lambda m, a, b, i, j: torch.addcmul(a, a, b, value=0.5),
        "addcdiv": lambda m, a, b, i, j: torch.addcdiv(a, a, b, value=2),
        "small_ints": lambda m, a, b, i, j: i.to(torch.int8) + j.to(torch.uint8),
        "scalar_tensor": lambda m, a, b, i, j: a.half() * torch.tensor(2.5),
        "int_real": lambda m, a, b, i, j: i + 0.5,
        "bool_sum": lambda m, a, b, i, j: (a > 0) + (b > 0),
        "size": lambda m, a, b, i, j: a / a.shape[0] + a.shape[0],
        "broadcast": lambda m, a, b, i, j: a.unsqueeze(2) - m.row,
    }
    made = group(["a", "b", "i", "j"])(functions, row=torch.tensor([0.5, -1.0, 2.0, 0.1]))

    def inputs(n, rng):
        return {"a": rng.standard_normal((n, 4), dtype=np.float32),
                "b": rng.standard_normal((n, 4), dtype=np.float32),
                "i": rng.integers(-5, 6, (n, 4)), "j": rng.integers(1, 5, (n, 4))}
    return made, inputs


def shapes():
    functions = {
        "view": lambda m, x: x.view(-1, 12), "reshape": lambda m, x: x.reshape(x.shape[0] * 2, 6, 2),
        "flatten": lambda m, x: x.flatten(1), "unflatten": lambda m, x: x.unflatten(1, (2, -1)),
        "permute": lambda m, x: x.permute(2, 0, 1), "t": lambda m, x: x.transpose(1, 2),
        "mT": lambda m, x: x.mT, "movedim": lambda m, x: x.movedim(0, 2),
        "squeeze": lambda m, x: x[:, :1].squeeze(1).unsqueeze(-1).squeeze(),
        "expand": lambda m, x: x.unsqueeze(1).expand(-1, 2, -1, -1),
        "repeat": lambda m, x: x.repeat(2, 1, 3), "tile": lambda m, x: x.tile(2, 2),
        "repeat_batch": lambda m, x: m.token.repeat(x.shape[0], 1, 1),
        "repeat_interleave": lambda m, x: x.repeat_interleave(2, dim=1),
        "cat": lambda m, x: torch.cat([x, x[:, :2] * 2], 1), "stack": lambda m, x: torch.stack([x, -x], 2),
        "cat_mixed": lambda m, x: torch.cat([x, torch.arange(4).expand_as(x[:, :1]) + 0], 1),
        "hstack": lambda m, x: torch.hstack([x, x]), "vstack": lambda m, x: torch.vstack([x, x]),
        "split": lambda m, x: x.split(2, 1)[1], "split_sizes": lambda m, x: x.split([1, 3, 2], 1)[1],
        "chunk": lambda m, x: x.chunk(4, 1)[1], "unbind": lambda m, x: x.unbind(1)[2],
        "narrow": lambda m, x: x.narrow(1, 1, 3), "slice": lambda m, x: x[:, 1:-1:2, -2:],
        "select": lambda m, x: x[:, -1], "flip": lambda m, x: x.flip(1, 2),
        "roll": lambda m, x: torch.roll(x, (1, -1), (1, 2)),
        "tril": lambda m, x: x.tril(1), "triu": lambda m, x: torch.triu(x, -1),
        "diagonal": lambda m, x: x.diagonal(1, 1, 2), "pad": lambda m, x: F.pad(x, (1, 2, 0, 1), value=3),
        "pad_cut": lambda m, x: F.pad(x, (-1, 1)), "reflect": lambda m, x: F.pad(x, (2, 1), mode="reflect"),
        "replicate": lambda m, x: F.pad(x, (2, 1), mode="replicate"),
        "circular": lambda m, x: F.pad(x, (2, 1), mode="circular"),
        "pixel_shuffle": lambda m, x: F.pixel_shuffle(x.reshape(x.shape[0], 4, 3, 2), 2),
        "meshgrid": lambda m, x: torch.stack(torch.meshgrid(x[0, 0], x[0, :, 1], indexing="ij")),
        "slice_scatter": lambda m, x: torch.slice_scatter(x, x[:, :2] * 0, 1, 1, 3),
        "select_scatter": lambda m, x: torch.select_scatter(x, x[:, 0] + 9, 1, -1),
    }
    made = group(["x"])(functions, token=torch.tensor([[[1.0, 2.0]]]))
    return made, lambda n, rng: {"x": rng.standard_normal((n, 6, 4), dtype=np.float32)}


def creation():
    functions = {
        "arange": lambda m, x: torch.arange(6) + x[:, :6].long(),
        "arange_batch": lambda m, x: torch.arange(x.shape[0]), "arange_step": lambda m, x: torch.arange(2, 11, 3) * 1,
        "arange_real": lambda m, x: torch.arange(0, 1, 0.3), "full": lambda m, x: torch.full((x.shape[0], 2), 7),
        "zeros": lambda m, x: torch.zeros(x.shape[0], 3, dtype=torch.int32), "ones_like": lambda m, x: torch.ones_like(x),
        "new_full": lambda m, x: x.new_full((2, 2), 4.5), "eye": lambda m, x: torch.eye(3, 4),
        "tril": lambda m, x: torch.tril_indices(4, 4, -1), "triu": lambda m, x: torch.triu_indices(3, 5, 1),
        "linspace": lambda m, x: torch.linspace(0, 1, 5), "one_hot": lambda m, x: F.one_hot((x * 3).long().abs() % 4, 4),
        "scalar": lambda m, x: x * torch.tensor(3), "causal": lambda m, x: torch.ones(5, 5).tril() == 0,
    }
    return group(["x"])(functions), lambda n, rng: {"x": rng.standard_normal((n, 6), dtype=np.float32)}


def reductions():
    functions = {
        "sum": lambda m, x, i: x.sum(), "sum_dim": lambda m, x, i: x.sum((1, 2)), "sum_int": lambda m, x, i: i.sum(1, keepdim=True),
        "sum_bool": lambda m, x, i: (i > 1).sum(-1), "mean": lambda m, x, i: x.mean(1), "prod": lambda m, x, i: x.prod(2),
        "amax": lambda m, x, i: x.amax((1, 2)), "amin": lambda m, x, i: x.amin(-1, keepdim=True),
        "max": lambda m, x, i: x.max(), "max_values": lambda m, x, i: x.max(1)[0], "max_places": lambda m, x, i: x.max(1)[1],
        "min_places": lambda m, x, i: x.min(2, keepdim=True)[1], "argmax": lambda m, x, i: x.argmax(), "argmin": lambda m, x, i: x.argmin(1),
        "any": lambda m, x, i: (i > 3).any(1), "all": lambda m, x, i: (i < 3).all(), "cumsum": lambda m, x, i: x.cumsum(1),
        "cumsum_int": lambda m, x, i: i.cumsum(0), "cumprod": lambda m, x, i: x.cumprod(2), "var": lambda m, x, i: x.var(1),
        "var_all": lambda m, x, i: x.var(), "std": lambda m, x, i: x.std((1, 2), unbiased=False),
        "var_mean": lambda m, x, i: torch.stack(torch.var_mean(x, 1, correction=0)),
        "norm": lambda m, x, i: x.norm(dim=1), "norm1": lambda m, x, i: torch.linalg.vector_norm(x, 1, 2),
        "norm_inf": lambda m, x, i: torch.linalg.vector_norm(x, math.inf, (1, 2)), "norm3": lambda m, x, i: torch.linalg.vector_norm(x, 3, 1),
        "normalize": lambda m, x, i: F.normalize(x, dim=2), "logsumexp": lambda m, x, i: x.logsumexp(1),
        "softmax": lambda m, x, i: x.softmax(1), "log_softmax": lambda m, x, i: F.log_softmax(x, -1),
        "topk": lambda m, x, i: x.topk(2, 1)[0], "topk_places": lambda m, x, i: x.topk(3, -1, largest=False)[1],
        "sort": lambda m, x, i: x.sort(1)[0], "argsort": lambda m, x, i: x.argsort(2, descending=True),
        "cosine": lambda m, x, i: F.cosine_similarity(x, x.flip(1), 2), "count": lambda m, x, i: torch.count_nonzero(i, 1),
        "aminmax": lambda m, x, i: torch.stack(torch.aminmax(x, dim=1)),
    }
    made = group(["x", "i"])(functions)
    return made, lambda n, rng: {"x": rng.standard_normal((n, 5, 4), dtype=np.float32), "i": rng.integers(0, 5, (n, 4))}


def indexed():
    functions = {
        "embedding": lambda m, x, i: F.embedding(i, m.table), "index": lambda m, x, i: x[:, m.li, m.lj],
        "index_one": lambda m, x, i: x[:, m.li], "index_far": lambda m, x, i: x[:, :, i[0] % 4],
        "index_two": lambda m, x, i: x[i[:, 0] * 0, i[:, 1] % 5], "index_apart": lambda m, x, i: x.unsqueeze(1)[:, 0, i[0] % 5, :][m.li, :, m.lj],
        "negative": lambda m, x, i: x[:, torch.tensor([-1, 0, -2])], "index_select": lambda m, x, i: x.index_select(1, m.li),
        "gather": lambda m, x, i: x.gather(1, (i % 5).unsqueeze(1)), "take_along": lambda m, x, i: torch.gather(x, 1, x.argsort(1)),
        "scatter": lambda m, x, i: x.scatter(1, (i % 5).unsqueeze(1), 7.0), "scatter_src": lambda m, x, i: torch.zeros_like(x).scatter(2, x.argsort(2), x),
        "scatter_add": lambda m, x, i: x.scatter_add(1, (i % 5).unsqueeze(1), torch.ones_like(x)),
        "scatter_reduce": lambda m, x, i: x.scatter_reduce(1, (i % 5).unsqueeze(1), torch.ones_like(x), "amax"),
        "index_add": lambda m, x, i: x.index_add(1, m.li, x[:, :3], alpha=2), "index_copy": lambda m, x, i: x.index_copy(1, m.lj, x[:, :3] * 3),
        "index_put": lambda m, x, i: x.index_put((i[:, 0] * 0, i[:, 1] % 5), torch.tensor(5.0)),
        "index_put_add": lambda m, x, i: x.index_put((torch.tensor([0, 0]), torch.tensor([1, 1])), torch.ones(2, 4), accumulate=True),
        "put_mask": lambda m, x, i: x.clone().masked_fill_(x > 0, 0), "mask": lambda m, x, i: x.index_put((x > 1,), torch.tensor(9.0)),
        "bag": lambda m, x, i: F.embedding_bag(i, m.table, mode="mean"), "bag_sum": lambda m, x, i: F.embedding_bag(i, m.table, mode="sum", per_sample_weights=x[:, 0]),
        "bag_max": lambda m, x, i: F.embedding_bag(i, m.table, mode="max"), "bag_padding": lambda m, x, i: F.embedding_bag(i, m.table, mode="mean", padding_idx=2),
        "bag_offsets": lambda m, x, i: F.embedding_bag(i.flatten(), m.table, torch.arange(i.shape[0]) * 3, mode="sum"),
        "bag_ends": lambda m, x, i: F.embedding_bag(i.flatten(), m.table, torch.arange(i.shape[0] + 1) * 4, mode="sum", include_last_offset=True),
    }
    made = group(["x", "i"])(functions, table=torch.randn(9, 5), li=torch.tensor([0, 2, 1]), lj=torch.tensor([1, 3, 0]))
    return made, lambda n, rng: {"x": rng.standard_normal((n, 5, 4), dtype=np.float32), "i": rng.integers(0, 9, (n, 4))}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.bilinear = nn.Linear(6, 4), nn.Bilinear(6, 6, 3)
        self.batch, self.layer, self.group = nn.BatchNorm1d(6), nn.LayerNorm(6), nn.GroupNorm(2, 6)
        self.rms, self.instance = nn.RMSNorm(6), nn.InstanceNorm1d(6, affine=True)
        self.conv1, self.conv1s = nn.Conv1d(6, 4, 3, padding=1, groups=2), nn.Conv1d(6, 4, 4, padding="same", dilation=2)
        self.up1 = nn.ConvTranspose1d(6, 4, 3, stride=2, padding=1, output_padding=1)
        self.heads = nn.MultiheadAttention(6, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        nn.init.uniform_(self.batch.running_var, 0.5, 1.5)
        nn.init.uniform_(self.batch.running_mean, -0.5, 0.5)

    def forward(self, x, y):
        c = x.transpose(1, 2)
        q, k, v = x.view(-1, 5, 2, 3).transpose(1, 2), y.view(-1, 5, 2, 3).transpose(1, 2), (x * y).view(-1, 5, 2, 3).transpose(1, 2)
        sdpa = F.scaled_dot_product_attention
        return {
            "linear": self.linear(x), "bilinear": self.bilinear(x, y), "batch": self.batch(c), "layer": self.layer(x),
            "group": self.group(c), "rms": self.rms(x), "instance": self.instance(c), "conv1": self.conv1(c), "conv1s": self.conv1s(c),
            "up1": self.up1(c), "mm": x[:, 0] @ self.linear.weight.t(), "bmm": torch.bmm(x, y.transpose(1, 2)), "matmul": x @ y.mT,
            "mv": torch.mv(x[0], y[0, 0]), "dot": torch.dot(x[0, 0], y[0, 0]), "outer": torch.outer(x[0, 0], y[0, 1]),
            "addmm": torch.addmm(self.linear.bias, x[:, 0], self.linear.weight.t(), beta=0.5, alpha=2),
            "baddbmm": torch.baddbmm(x[:, :, :5], x, y.mT, alpha=0.1), "einsum": torch.einsum("bik,bjk->bij", x, y),
            "einsum2": torch.einsum("bij,bij->b", x, y), "sdpa": sdpa(q, k, v), "causal": sdpa(q, k, v, is_causal=True),
            "mask": sdpa(q, k, v, attn_mask=torch.ones(5, 5, dtype=torch.bool).tril()), "bias": sdpa(q, k, v, attn_mask=x[:, None, :, :5], scale=0.3),
            "heads": self.heads(x, y, y, need_weights=False)[0], "encoder": self.encoder(x), "dropout": F.dropout(x, 0.5, self.training),
        }


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.depth = nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Conv2d(4, 4, (3, 5), padding=(1, 2), groups=4, bias=False)
        self.up, self.norm = nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1), nn.BatchNorm2d(4)
        self.conv3 = nn.Conv3d(2, 3, 2)

    def forward(self, x):
        i = F.interpolate
        return {
            "conv": self.conv(x), "depth": self.depth(x), "up": self.up(x), "norm": self.norm(x), "conv3": self.conv3(x.unflatten(1, (2, 2))),
            "max": F.max_pool2d(x, 3, 2, 1), "max_ceil": F.max_pool2d(x, 2, 2, ceil_mode=True), "max_dilated": F.max_pool2d(x, 2, 1, dilation=2),
            "max_places": F.max_pool2d(x, 2, return_indices=True)[1], "avg": F.avg_pool2d(x, 3, 2, 1), "avg_own": F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            "avg_ceil": F.avg_pool2d(x, 2, 2, ceil_mode=True), "avg_divisor": F.avg_pool2d(x, 2, divisor_override=3), "gap": F.adaptive_avg_pool2d(x, 1),
            "adaptive": F.adaptive_avg_pool2d(x, (3, 2)), "adaptive_max": F.adaptive_max_pool2d(x, (7, 1)), "avg1": F.avg_pool1d(x[:, 0], 3, 2),
            "nearest": i(x, scale_factor=2), "nearest_size": i(x, size=(10, 5)), "exact": i(x, size=(10, 5), mode="nearest-exact"),
            "bilinear": i(x, scale_factor=1.5, mode="bilinear"), "aligned": i(x, size=(11, 3), mode="bilinear", align_corners=True),
            "bicubic": i(x, size=(9, 8), mode="bicubic"), "linear": i(x[:, 0], size=9, mode="linear"),
        }


def network():
    return Network(), lambda n, rng: {k: rng.standard_normal((n, 5, 6), dtype=np.float32) for k in "xy"}


def images():
    return Images(), lambda n, rng: {"x": rng.standard_normal((n, 4, 7, 6), dtype=np.float32)}


GROUPS = [unary, binary, shapes, creation, reductions, indexed, network, images]


class Fixture(nn.Module):
    """What the importer's unit test looks at."""

    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(10, 4, mode="sum")
        self.ids = nn.Embedding(7, 4, padding_idx=0)
        self.linear = nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("shift", torch.tensor([1.0, 2.0, 3.0]), persistent=False)

    def forward(self, items, offsets, ids):
        x = torch.cat([self.bag(items, offsets), self.ids(ids)], 1)
        y = self.norm(self.linear(x)) + self.shift
        y = y.masked_fill(y == 0, -math.inf)
        pairs = y.unsqueeze(2) * y.unsqueeze(1)
        picked = pairs[:, torch.tensor([0, 1]), torch.tensor([1, 2])]
        return {"score": torch.sigmoid(y).sum(1), "picked": picked, "best": torch.topk(y, 2)[1]}


def without_metadata(data: bytes) -> bytes:
    """An exported program without what nodes say of the source they came from: paths of this machine."""
    program = json.loads(data)
    for node in program["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {}
    return json.dumps(program, separators=(",", ":")).encode()


def save_compressed(program, path) -> None:
    """With records deflated, which torch does not do and zip tools do."""
    plain = io.BytesIO()
    torch.export.save(program, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        for entry in source.infolist():
            if "sample_inputs" in entry.filename or "example_inputs" in entry.filename:
                continue
            data = source.read(entry)
            if entry.filename.endswith(("models/model.json", "exported_program.json")):
                data = without_metadata(data)
            target.writestr(zipfile.ZipInfo(entry.filename), data,
                            zipfile.ZIP_STORED if entry.filename.endswith(".pt") else zipfile.ZIP_DEFLATED)


def export(module, example, batch):
    shapes = {key: {0: batch} for key in example}
    return torch.export.export(module, (), kwargs=example, dynamic_shapes=shapes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--fixture", type=pathlib.Path)
    args = parser.parse_args()
    batch = torch.export.Dim("batch", min=1, max=512)
    if args.fixture:
        torch.manual_seed(SEED)
        example = (torch.arange(9), torch.tensor([0, 3, 5]), torch.tensor([1, 0, 6]))
        items = torch.export.Dim("items", min=1, max=4096)
        program = torch.export.export(Fixture().eval(), example, dynamic_shapes=({0: items}, {0: batch}, {0: batch}))
        save_compressed(program, args.fixture)
    for make in GROUPS if args.out else []:
        name = make.__name__
        if args.only and name not in args.only:
            continue
        torch.manual_seed(SEED)
        module, inputs = make()
        module.eval()
        tensors = lambda n: {k: torch.from_numpy(v) for k, v in inputs(n, np.random.default_rng(SEED + n)).items()}
        folder = args.out / name
        folder.mkdir(parents=True, exist_ok=True)
        # One function at a time would be easier to read; one file a group is a test of the whole.
        program = export(module, tensors(3), batch)
        torch.export.save(program, str(folder / "plain.pt2"))
        torch.export.save(program.run_decompositions(), str(folder / "core.pt2"))
        for n in (3, 4):
            given = tensors(n)
            with torch.no_grad():
                answers = module(**given)
            arrays = {f"in.{k}": v.numpy() for k, v in given.items()}
            arrays |= {f"out.{k}": v.numpy() for k, v in answers.items()}
            np.savez(folder / f"batch{n}.npz", **arrays)
        print(name, len(answers), "outputs")


if __name__ == "__main__":
    main()
