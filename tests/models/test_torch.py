"""`torch.compile(model, backend="millpower")`: the same answers as PyTorch's, and loud where it isn't used."""

import os
import pathlib
import sys
import warnings

import pytest

torch = pytest.importorskip("torch")

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("MILLPOWER_BINARY", str(ROOT / "build" / "release" / "millpower"))
sys.path.insert(0, str(ROOT / "python"))

import millpower.torch  # noqa: E402


class Ranker(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.EmbeddingBag(100, 8, mode="mean")
        self.top = torch.nn.Sequential(torch.nn.Linear(13, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))

    def forward(self, dense, ids):
        return torch.sigmoid(self.top(torch.cat([dense, self.table(ids)], dim=1)))


def compiled(model):
    torch._dynamo.reset()
    return torch.compile(model.eval(), backend=millpower.torch.backend, dynamic=False)


def close(a, b):
    assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_a_ranker_gives_pytorchs_answers():
    torch.manual_seed(1)
    model = Ranker()
    fast = compiled(model)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", millpower.torch.FallbackWarning)
        for rows in (1, 6):
            dense, ids = torch.randn(rows, 5), torch.randint(0, 100, (rows, 4))
            close(fast(dense, ids), model(dense, ids))
            close(fast(dense + 1, ids), model(dense + 1, ids))


def test_several_outputs_and_types():
    class Many(torch.nn.Module):
        def forward(self, x):
            return x.argmax(1), (x * 2).to(torch.bfloat16), x > 0

    x = torch.randn(3, 7)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", millpower.torch.FallbackWarning)
        for got, want in zip(compiled(Many())(x), Many()(x)):
            assert got.dtype == want.dtype and torch.equal(got, want)


def test_what_it_cannot_run_falls_back_and_names_the_operator():
    class Refused(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.inv(x)

    x = torch.eye(3) * 2
    with torch.no_grad(), pytest.warns(millpower.torch.FallbackWarning, match="inv"):
        close(compiled(Refused())(x), torch.eye(3) / 2)


def test_training_falls_back():
    model = Ranker()
    dense = torch.randn(2, 5, requires_grad=True)
    with pytest.warns(millpower.torch.FallbackWarning, match="gradients"):
        compiled(model)(dense, torch.zeros(2, 4, dtype=torch.int64)).sum().backward()
    assert dense.grad is not None


def test_int8_tables_hold_auc(tmp_path):
    import int8_tables
    import train_torch  # of examples/ranking, which int8_tables finds

    trade = int8_tables.data.Trade()
    model = train_torch.train(trade)
    train_torch.export(model, trade, tmp_path / "offers.pt2")
    int8_tables.assert_auc_holds(tmp_path / "offers.pt2", trade, tmp_path)
