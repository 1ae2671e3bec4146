// Losses, which models keep when they are exported with them.
#include <algorithm>

#include "import/onnx/formula.h"
#include "import/onnx/node.h"

namespace millpower::import::onnx {
namespace {

// Of log-probabilities [n, c, d ...] and classes [n, d ...]: minus the log-probability of the
// class, times its weight; 0 where the class is ignore_index. "mean" divides by the weights' sum.
Result<Tensor> Loss(Node& n, Tensor logs, Tensor classes, Tensor weights) {
  if (n.b.rank(logs) < 2) return Invalid("scores are not [n, c, ...]");
  TRY_ASSIGN(const Tensor target, n.b.Cast(classes, DType::kI64));
  const bool ignores = n.HasAttribute("ignore_index");
  const auto ignored = static_cast<double>(n.Int("ignore_index", 0));
  Formula safe(n.b, {target});
  const auto wanted = safe.Load();
  if (ignores) {
    safe.Select(safe.Is(MapOp::kEqual, wanted, safe.Number(ignored)), safe.Number(0), wanted);
  }
  TRY_ASSIGN(const Tensor index, safe.Done());
  TRY_ASSIGN(const Tensor column, n.b.Unsqueeze(index, 1));
  TRY_ASSIGN(const Tensor taken, n.b.TakeAlong(logs, column, 1));
  TRY_ASSIGN(const Tensor log, n.b.Squeeze(taken, {1}));
  const DType type = n.b.dtype(log);
  Tensor weight = n.b.Scalar(type, 1);
  if (weights.present()) {
    TRY_ASSIGN(weight, n.b.Take(weights, index, 0));
  }
  if (ignores) {
    Formula f(n.b, {weight, target});
    const auto w = f.Load(0), t = f.Load(1);
    f.Select(f.Is(MapOp::kEqual, t, f.NumberOf(DType::kI64, ignored)), f.Number(0), w);
    TRY_ASSIGN(weight, f.Done());
  }
  Formula f(n.b, {log, weight});
  f(MapOp::kMul, f(MapOp::kNeg, f.Load(0)), f.Load(1));
  TRY_ASSIGN(const Tensor loss, f.Done());
  const std::string reduction = n.Text("reduction", "mean");
  if (reduction == "none") return loss;
  if (reduction != "mean" && reduction != "sum") return Invalid("reduction '" + reduction + "'");
  if (reduction == "mean" && !ignores && !weights.present())
    return n.b.Reduce(Reduction::kMean, loss, {}, false);
  TRY_ASSIGN(const Tensor sum, n.b.Reduce(Reduction::kSum, loss, {}, false));
  if (reduction == "sum") return sum;
  TRY_ASSIGN(const Tensor total, n.b.Reduce(Reduction::kSum, weight, {}, false));
  return n.b.Binary(MapOp::kDiv, sum, total);
}

Result<Tensor> NegativeLogLikelihoodLoss(Node& n) { return Loss(n, n.in(0), n.in(1), n.in(2)); }

Result<Values> SoftmaxCrossEntropyLoss(Node& n) {
  if (n.b.rank(n.in(0)) < 2) return Invalid("scores are not [n, c, ...]");
  TRY_ASSIGN(const Tensor logs, n.b.Softmax(n.in(0), 1, true));
  TRY_ASSIGN(const Tensor loss, Loss(n, logs, n.in(1), n.in(2)));
  return Values{loss, logs};
}

constexpr Operator kOperators[] = {
    {"", "NegativeLogLikelihoodLoss", One<NegativeLogLikelihoodLoss>, 2},
    {"", "SoftmaxCrossEntropyLoss", SoftmaxCrossEntropyLoss, 2},
};

}  // namespace

std::span<const Operator> LossOperators() { return kOperators; }

}  // namespace millpower::import::onnx
