"""Made-up trade data: buyers, a catalogue, and which offers buyers took up.

A buyer has a region and a business line, an article a category, a supplier region and a price. Whether
an offer is taken up follows hidden tastes of buyers and articles, so that there is something to learn.
"""

import numpy as np

BUYERS, ARTICLES, CATEGORIES, REGIONS, LINES = 2000, 5000, 60, 24, 16
HISTORY = 8  # articles bought last


class Trade:
    def __init__(self, seed=7):
        self.random = np.random.default_rng(seed)
        r = self.random
        self.region = r.integers(0, REGIONS, BUYERS)
        self.line = r.integers(0, LINES, BUYERS)
        self.category = r.integers(0, CATEGORIES, ARTICLES)
        self.origin = r.integers(0, REGIONS, ARTICLES)
        self.price = r.lognormal(3, 1, ARTICLES).astype(np.float32)
        taste_of_line = r.standard_normal((LINES, 8))
        taste_of_category = r.standard_normal((CATEGORIES, 8))
        self.buyer_taste = taste_of_line[self.line] + 0.5 * r.standard_normal((BUYERS, 8))
        self.article_taste = taste_of_category[self.category] + 0.5 * r.standard_normal((ARTICLES, 8))
        self.history = np.stack([self._bought(buyer) for buyer in range(BUYERS)])

    def _bought(self, buyer):
        some = self.random.integers(0, ARTICLES, 64)
        return some[np.argsort(-self.article_taste[some] @ self.buyer_taste[buyer])[:HISTORY]]

    def features(self, buyers, articles):
        """Columns of one row for each pair; all ids i64, the rest f32."""
        near = (self.region[buyers] == self.origin[articles]).astype(np.float32)
        return {
            "buyer": buyers.astype(np.int64),
            "line": self.line[buyers].astype(np.int64),
            "article": articles.astype(np.int64),
            "category": self.category[articles].astype(np.int64),
            "history": self.history[buyers].astype(np.int64),
            "numbers": np.stack([np.log(self.price[articles]), near], axis=1).astype(np.float32),
        }

    def offers(self, count, seed):
        """Features of `count` offers, and whether each was taken up."""
        r = np.random.default_rng(seed)
        buyers, articles = r.integers(0, BUYERS, count), r.integers(0, ARTICLES, count)
        features = self.features(buyers, articles)
        score = (0.5 * (self.buyer_taste[buyers] * self.article_taste[articles]).sum(1)
                 - 0.4 * (features["numbers"][:, 0] - 3) + 0.8 * features["numbers"][:, 1] - 1.5)
        taken = r.random(count) < 1 / (1 + np.exp(-score))
        return features, taken.astype(np.float32)


def auc(labels, scores):
    """Area under the receiver operating characteristic: the odds that a taken offer ranks above another."""
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.bincount(inverse, ranks) / counts)[inverse]  # equal scores share their ranks
    positive = labels.sum()
    return (ranks[labels > 0].sum() - positive * (positive + 1) / 2) / (positive * (len(labels) - positive))
