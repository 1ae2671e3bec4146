"""Trains the example's model in PyTorch and exports it: python train_torch.py offers.pt2"""

import sys

import torch
from torch import nn

import data


class Offers(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.buyer = nn.Embedding(data.BUYERS, width)
        self.line = nn.Embedding(data.LINES, width)
        self.article = nn.Embedding(data.ARTICLES, width)
        self.category = nn.Embedding(data.CATEGORIES, width)
        self.history = nn.EmbeddingBag(data.ARTICLES, width, mode="mean")
        self.numbers = nn.Linear(2, width)
        self.top = nn.Sequential(nn.Linear(6 * width + 15, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(),
                                 nn.Linear(64, 1))
        for table in (self.buyer, self.line, self.article, self.category, self.history):
            nn.init.normal_(table.weight, std=0.1)
        self.register_buffer("pairs", torch.triu_indices(6, 6, 1))

    def forward(self, buyer, line, article, category, history, numbers):
        fields = torch.stack([self.buyer(buyer), self.line(line), self.article(article), self.category(category),
                              self.history(history), self.numbers(numbers)], dim=1)
        dots = torch.bmm(fields, fields.transpose(1, 2))
        crossed = dots[:, self.pairs[0], self.pairs[1]]
        return torch.sigmoid(self.top(torch.cat([fields.flatten(1), crossed], dim=1))).squeeze(1)


def columns(features):
    return {name: torch.from_numpy(values) for name, values in features.items()}


def train(trade, offers=400_000):
    torch.manual_seed(1)
    features, taken = trade.offers(offers, seed=1)
    features, taken = columns(features), torch.from_numpy(taken)
    model = Offers()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(2):
        order = torch.randperm(len(taken))
        for rows in order.split(2048):
            loss = nn.functional.binary_cross_entropy(model(**{k: v[rows] for k, v in features.items()}), taken[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}")
    return model.eval()


def export(model, trade, path):
    batch = torch.export.Dim("batch", min=1, max=4096)
    some = columns(trade.offers(8, seed=2)[0])
    exported = torch.export.export(model, (), some, dynamic_shapes={name: {0: batch} for name in some})
    torch.export.save(exported, path)


def main():
    trade = data.Trade()
    model = train(trade)
    held_out, labels = trade.offers(50_000, seed=2)
    with torch.no_grad():
        print(f"AUC in PyTorch: {data.auc(labels, model(**columns(held_out)).numpy()):.4f}")
    export(model, trade, sys.argv[1])


if __name__ == "__main__":
    main()
