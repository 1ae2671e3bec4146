#!/usr/bin/env python3
"""Small ranking models (and an encoder and a CNN) as people have them: nn.Modules with seeded random
weights, exported by PyTorch to .pt2 and ONNX with a symbolic batch, with inputs and what PyTorch
computes from them.

    ranking_models.py --out DIR [--sizes small|published] [--max-rows N] [--only NAME ...]
                      [--no-onnx]

makes for each model

    DIR/NAME/model.pt2   torch.export.save, batch symbolic
    DIR/NAME/model.onnx  torch.onnx.export, the same batch
    DIR/NAME/batch1.npz  "in.x" ... and "out.y" ...: inputs and outputs of one batch size
    DIR/NAME/batch5.npz

Definitions: DLRM (Naumov et al., 2019), DCN v2 (Wang et al., 2020), DeepFM (Guo et al., 2017), DIN
(Zhou et al., 2018), MMoE (Ma et al., 2018), BERT (Devlin et al., 2018). Needs torch, onnx and
onnxscript. The weights' values mean nothing.
"""

import argparse
import pathlib

import numpy as np
import torch
from torch import nn

SEED = 20240607
BATCHES = (1, 5)
# Rows of the 26 tables of the Criteo Kaggle data set, and of MLPerf's DLRM-DCNv2 (before its cap of
# 40 million), as their reference implementations list them.
KAGGLE_ROWS = [1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27,
               14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572]
MLPERF_ROWS = [40000000, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 40000000, 3067956, 405282, 10,
               2209, 11938, 155, 4, 976, 14, 40000000, 40000000, 40000000, 590152, 12973, 108, 36]


def mlp(sizes, last=None):
    layers = []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        layers.append(nn.Linear(a, b))
        if i + 2 < len(sizes):
            layers.append(nn.ReLU())
    if last is not None:
        layers.append(last)
    return nn.Sequential(*layers)


class Bag(nn.EmbeddingBag):
    """A table of a fixed number of ids a row. ONNX has no pooled gather, and PyTorch's exporter makes
    a loop of it; people write a gather and a sum instead, and so does this for ONNX."""

    for_onnx = False

    def forward(self, ids):
        return self.weight[ids].sum(1) if Bag.for_onnx else super().forward(ids)


class Mlp(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.net = mlp(sizes, nn.Sigmoid())

    def forward(self, x):
        return {"score": self.net(x)}


class Dlrm(nn.Module):
    """Dense features through an MLP, one embedding a table, all pairs' dot products."""

    def __init__(self, rows, dim, dense, bottom, top):
        super().__init__()
        self.tables = nn.ModuleList(Bag(n, dim, mode="sum") for n in rows)
        self.bottom = mlp([dense, *bottom, dim], nn.ReLU())
        count = len(rows) + 1
        self.top = mlp([dim + count * (count - 1) // 2, *top, 1], nn.Sigmoid())
        li, lj = torch.tril_indices(count, count, offset=-1)
        self.register_buffer("li", li)
        self.register_buffer("lj", lj)

    def forward(self, dense, ids):
        x = self.bottom(dense)
        rows = [x] + [table(ids[:, i:i + 1]) for i, table in enumerate(self.tables)]
        t = torch.stack(rows, 1)
        z = torch.bmm(t, t.transpose(1, 2))
        return {"score": self.top(torch.cat([x, z[:, self.li, self.lj]], 1)).squeeze(1)}


class DlrmBags(nn.Module):
    """The same with ragged features: each table has its own items and offsets."""

    def __init__(self, rows, dim, dense, bottom, top):
        super().__init__()
        modes = ["sum", "mean", "sum"]
        self.tables = nn.ModuleList(nn.EmbeddingBag(n, dim, mode=mode, include_last_offset=last)
                                    for n, mode, last in zip(rows, modes, [False, False, True]))
        self.bottom = mlp([dense, *bottom, dim], nn.ReLU())
        self.top = mlp([dim * 4, *top, 1], nn.Sigmoid())

    def forward(self, dense, items0, offsets0, items1, offsets1, items2, offsets2, weights2):
        parts = [self.bottom(dense), self.tables[0](items0, offsets0),
                 self.tables[1](items1, offsets1),
                 self.tables[2](items2, offsets2, per_sample_weights=weights2)]
        return {"score": self.top(torch.cat(parts, 1)).squeeze(1)}


class Dcn(nn.Module):
    """Cross layers of low rank beside a deep network, several ids a feature."""

    def __init__(self, rows, hot, dim, dense, layers, rank, deep, top):
        super().__init__()
        self.hot = hot
        self.tables = nn.ModuleList(Bag(n, dim, mode="sum") for n in rows)
        self.bottom = mlp([dense, *deep, dim], nn.ReLU())
        width = dim * (len(rows) + 1)
        self.down = nn.ModuleList(nn.Linear(width, rank, bias=False) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(rank, width) for _ in range(layers))
        self.top = mlp([width, *top, 1], nn.Sigmoid())

    def forward(self, dense, ids):
        rows, at = [self.bottom(dense)], 0
        for table, hot in zip(self.tables, self.hot):
            rows.append(table(ids[:, at:at + hot]))
            at += hot
        x0 = torch.cat(rows, 1)
        x = x0
        for down, up in zip(self.down, self.up):
            x = x0 * up(down(x)) + x
        return {"score": self.top(x).squeeze(1)}


class DeepFm(nn.Module):
    def __init__(self, rows, dim, deep):
        super().__init__()
        offsets = torch.cumsum(torch.tensor([0, *rows[:-1]]), 0)
        self.register_buffer("offsets", offsets)
        self.first = nn.Embedding(sum(rows), 1)
        self.second = nn.Embedding(sum(rows), dim)
        self.deep = mlp([dim * len(rows), *deep, 1])
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, ids):
        at = ids + self.offsets
        linear = self.first(at).sum(1).squeeze(-1)
        v = self.second(at)
        pairs = 0.5 * (v.sum(1).pow(2) - v.pow(2).sum(1)).sum(1)
        deep = self.deep(v.flatten(1)).squeeze(1)
        return {"probability": torch.sigmoid(linear + pairs + deep + self.bias)}


class Din(nn.Module):
    """Attention of the candidate over a history padded with id 0."""

    def __init__(self, items, users, dim, attention, top):
        super().__init__()
        self.items = nn.Embedding(items, dim, padding_idx=0)
        self.users = nn.Embedding(users, dim)
        self.attention = mlp([4 * dim, *attention, 1])
        self.norm = nn.BatchNorm1d(3 * dim)
        self.top = nn.Sequential(nn.Linear(3 * dim, top[0]), nn.PReLU(), nn.Linear(top[0], 1))

    def forward(self, user, candidate, history):
        q = self.items(candidate)
        k = self.items(history)
        wide = q.unsqueeze(1).expand_as(k)
        scores = self.attention(torch.cat([wide, k, wide - k, wide * k], -1)).squeeze(-1)
        scores = scores.masked_fill(history == 0, -1e9)
        interest = (torch.softmax(scores, 1).unsqueeze(1) @ k).squeeze(1)
        x = self.norm(torch.cat([self.users(user), interest, q], 1))
        return {"click": torch.sigmoid(self.top(x).squeeze(1))}


class TwoTower(nn.Module):
    """A user's vector against all items': the exact best k."""

    def __init__(self, users, items, features, dim, k):
        super().__init__()
        self.users = nn.Embedding(users, dim)
        self.tower = mlp([dim + features, 2 * dim, dim])
        self.items = nn.Embedding(items, dim)
        self.k = k

    def forward(self, user, features):
        u = self.tower(torch.cat([self.users(user), features], 1))
        u = nn.functional.normalize(u, dim=1)
        scores, ids = torch.topk(u @ self.items.weight.t(), self.k)
        return {"scores": scores, "ids": ids}


class Mmoe(nn.Module):
    def __init__(self, rows, dim, experts, width, tasks, tower):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, dim) for n in rows)
        inputs = dim * len(rows)
        self.experts = nn.Parameter(torch.randn(experts, inputs, width) * 0.2)
        self.bias = nn.Parameter(torch.randn(experts, width) * 0.1)
        self.gates = nn.ModuleList(nn.Linear(inputs, experts, bias=False) for _ in range(tasks))
        self.towers = nn.ModuleList(mlp([width, tower, 1], nn.Sigmoid()) for _ in range(tasks))

    def forward(self, ids):
        x = torch.cat([table(ids[:, i]) for i, table in enumerate(self.tables)], 1)
        e = torch.relu(torch.einsum("bi,eiw->bew", x, self.experts) + self.bias)
        answers = {}
        for i, (gate, tower) in enumerate(zip(self.gates, self.towers)):
            mix = torch.softmax(gate(x), -1)
            answers[f"task{i}"] = tower(torch.einsum("be,bew->bw", mix, e)).squeeze(1)
        return answers


class BertLayer(nn.Module):
    def __init__(self, hidden, heads, inner):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)
        self.norm1 = nn.LayerNorm(hidden, eps=1e-12)
        self.up = nn.Linear(hidden, inner)
        self.down = nn.Linear(inner, hidden)
        self.norm2 = nn.LayerNorm(hidden, eps=1e-12)
        self.dropout = nn.Dropout(0.1)

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x, mask):
        y = nn.functional.scaled_dot_product_attention(
            self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x)),
            attn_mask=mask)
        y = y.transpose(1, 2).reshape(x.shape)
        x = self.norm1(x + self.dropout(self.out(y)))
        y = self.down(nn.functional.gelu(self.up(x)))
        return self.norm2(x + self.dropout(y))


class Bert(nn.Module):
    def __init__(self, vocabulary, positions, hidden, heads, inner, layers):
        super().__init__()
        self.words = nn.Embedding(vocabulary, hidden, padding_idx=0)
        self.positions = nn.Embedding(positions, hidden)
        self.kinds = nn.Embedding(2, hidden)
        self.norm = nn.LayerNorm(hidden, eps=1e-12)
        self.layers = nn.ModuleList(BertLayer(hidden, heads, inner) for _ in range(layers))
        self.pooler = nn.Linear(hidden, hidden)
        self.register_buffer("ids", torch.arange(positions).unsqueeze(0), persistent=False)

    def forward(self, input_ids, attention_mask, token_type_ids):
        length = input_ids.shape[1]
        x = self.words(input_ids) + self.positions(self.ids[:, :length])
        x = self.norm(x + self.kinds(token_type_ids))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, mask)
        return {"hidden": x, "pooled": torch.tanh(self.pooler(x[:, 0]))}


class Cnn(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        c = channels
        self.stem = nn.Sequential(nn.Conv2d(3, c, 3, padding=1, bias=False), nn.BatchNorm2d(c),
                                  nn.ReLU(inplace=True), nn.MaxPool2d(2))
        self.block = nn.Sequential(nn.Conv2d(c, c, 3, padding=1, groups=2, bias=False),
                                   nn.BatchNorm2d(c), nn.Hardswish(), nn.Conv2d(c, c, 1))
        self.down = nn.Conv2d(c, 2 * c, 3, stride=2, padding=1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2),
                                  nn.Linear(2 * c, classes))

    def forward(self, image):
        x = self.stem(image)
        x = torch.relu(x + self.block(x))
        x = nn.functional.avg_pool2d(torch.relu(self.down(x)), 2)
        return {"logits": self.head(x)}


class Source:
    """Inputs of one model at one batch size."""

    def __init__(self, batch, seed):
        self.batch = batch
        self.rng = np.random.default_rng(seed)

    def reals(self, *shape):
        return torch.from_numpy(self.rng.standard_normal((self.batch, *shape), dtype=np.float32))

    def ids(self, rows, *shape, low=0):
        return torch.from_numpy(self.rng.integers(low, rows, (self.batch, *shape), dtype=np.int64))

    def columns(self, rows):
        return torch.stack([self.ids(n) for n in rows], 1)

    def bags(self, rows, ends, most=4):
        """Items and offsets; some bags are empty, and none are at the end."""
        counts = self.rng.integers(0, most + 1, self.batch)
        counts[0] = most
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        items = self.rng.integers(0, rows, offsets[-1], dtype=np.int64)
        return torch.from_numpy(items), torch.from_numpy(offsets if ends else offsets[:-1])


def models(sizes, max_rows):
    """Name -> (module, inputs of a Source, dynamic shapes of inputs that are not just batch)."""
    small = sizes == "small"
    rows = [40, 7, 300, 25, 3] if small else [min(n, max_rows) for n in KAGGLE_ROWS]
    big = [60, 11, 200, 9] if small else [min(n, max_rows) for n in MLPERF_ROWS]
    hot = [3, 1, 2, 1] if small else [3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12,
                                      100, 27, 10, 3, 1, 1]
    batch = torch.export.Dim("batch", min=1, max=4096)
    items = [torch.export.Dim(f"items{i}", min=1, max=16384) for i in range(3)]
    ends = batch + 1
    dense = 13

    def dlrm_inputs(s):
        return {"dense": s.reals(dense), "ids": s.columns(rows)}

    def bag_inputs(s):
        inputs = {"dense": s.reals(dense)}
        for i, n in enumerate(rows[:3]):
            inputs[f"items{i}"], inputs[f"offsets{i}"] = s.bags(n, ends=i == 2)
        count = len(inputs["items2"])
        inputs["weights2"] = torch.from_numpy(s.rng.random(count, dtype=np.float32))
        return inputs

    def dcn_inputs(s):
        columns = [s.ids(n, h) for n, h in zip(big, hot)]
        return {"dense": s.reals(dense), "ids": torch.cat(columns, 1)}

    def din_inputs(s):
        history = s.ids(50, 10, low=1)
        for row in range(s.batch):
            history[row, int(s.rng.integers(1, 11)):] = 0
        return {"user": s.ids(20), "candidate": s.ids(50, low=1), "history": history}

    def bert_inputs(s):
        words = s.ids(100, 12, low=1)
        mask = torch.ones_like(words)
        for row in range(s.batch):
            mask[row, int(s.rng.integers(3, 13)):] = 0
        return {"input_ids": words * mask, "attention_mask": mask, "token_type_ids": s.ids(2, 12)}

    bag_shapes = {"dense": {0: batch}}
    for i in range(3):
        bag_shapes[f"items{i}"] = {0: items[i]}
        bag_shapes[f"offsets{i}"] = {0: ends if i == 2 else batch}
    bag_shapes["weights2"] = {0: items[2]}

    table = {
        "mlp": (lambda: Mlp([16, 32, 24, 1] if small else [512, 1024, 512, 1]),
                lambda s: {"x": s.reals(16 if small else 512)}, None),
        "dlrm": (lambda: Dlrm(rows, 8 if small else 16, dense, [16] if small else [512, 256, 64],
                              [24] if small else [512, 256]), dlrm_inputs, None),
        "dlrm_bags": (lambda: DlrmBags(rows[:3], 8 if small else 16, dense, [16], [24]),
                      bag_inputs, bag_shapes),
        "dcnv2": (lambda: Dcn(big, hot, 8 if small else 128, dense, 2 if small else 3,
                              4 if small else 512, [16] if small else [512, 256],
                              [24] if small else [1024, 1024, 512, 256]), dcn_inputs, None),
        "deepfm": (lambda: DeepFm(rows, 8 if small else 16, [24, 16] if small else [400, 400, 400]),
                   lambda s: {"ids": s.columns(rows)}, None),
        "din": (lambda: Din(50, 20, 8, [16, 8], [24]), din_inputs, None),
        "two_tower": (lambda: TwoTower(30, 80 if small else max_rows, 5, 16, 6),
                      lambda s: {"user": s.ids(30), "features": s.reals(5)}, None),
        "mmoe": (lambda: Mmoe(rows[:3], 8, 4, 12, 2, 10),
                 lambda s: {"ids": s.columns(rows[:3])}, None),
        "bert": (lambda: Bert(100, 32, 24, 3, 48, 2) if small
                 else Bert(30522, 512, 768, 12, 3072, 12), bert_inputs, None),
        "cnn": (lambda: Cnn(8, 10), lambda s: {"image": s.reals(3, 16, 16)}, None),
    }
    for name, (make, inputs, shapes) in table.items():
        yield name, make, inputs, shapes, batch


def settle(model):
    """Batch statistics other than 0 and 1, and embeddings that are not all alike."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--sizes", choices=["small", "published"], default="small")
    parser.add_argument("--max-rows", type=int, default=1_000_000, help="of published tables")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--no-onnx", action="store_true")
    args = parser.parse_args()
    for number, (name, make, inputs, shapes, batch) in enumerate(models(args.sizes, args.max_rows)):
        if args.only and name not in args.only:
            continue
        torch.manual_seed(SEED + number)
        model = settle(make())
        folder = args.out / name
        folder.mkdir(parents=True, exist_ok=True)
        example = inputs(Source(3, SEED))
        if shapes is None:
            shapes = {key: {0: batch} for key in example}
        exported = torch.export.export(model, (), kwargs=example, dynamic_shapes=shapes)
        torch.export.save(exported, str(folder / "model.pt2"))
        if not args.no_onnx:
            Bag.for_onnx = True
            torch.onnx.export(model, (), str(folder / "model.onnx"), kwargs=example, dynamo=True,
                              verbose=False, dynamic_shapes=shapes, input_names=list(example),
                              output_names=list(model(**example)),
                              external_data=args.sizes != "small")
            Bag.for_onnx = False
        for size in BATCHES:
            given = inputs(Source(size, SEED + 1 + size))
            with torch.no_grad():
                answers = model(**given)
            arrays = {f"in.{key}": value.numpy() for key, value in given.items()}
            arrays |= {f"out.{key}": value.numpy() for key, value in answers.items()}
            np.savez(folder / f"batch{size}.npz", **arrays)
        print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters")


if __name__ == "__main__":
    main()
