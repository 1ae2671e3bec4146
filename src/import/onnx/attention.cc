// Attention and what belongs to it.
#include <cmath>
#include <limits>

#include "import/onnx/formula.h"
#include "import/onnx/node.h"

namespace millpower::import::onnx {
namespace {

// [batch, rows, heads * size] -> [batch, heads, rows, size]
Result<Tensor> SplitHeads(Node& n, Tensor x, int64_t heads) {
  if (heads < 1) return Invalid("q_num_heads and kv_num_heads are needed");
  const auto size = n.b.dim(x, 2).DividedBy(heads);
  if (!size) return Invalid("heads do not divide the last dimension");
  const std::vector<Size> cut = {n.b.dim(x, 0), n.b.dim(x, 1), heads, *size};
  TRY_ASSIGN(const Tensor split, n.b.Reshape(x, cut));
  return n.b.Transpose(split, {0, 2, 1, 3});
}

Result<Tensor> JoinHeads(Node& n, Tensor x) {
  TRY_ASSIGN(const Tensor rows, n.b.Transpose(x, {0, 2, 1, 3}));
  return n.b.Flatten(rows, 2, 4);
}

// Every head of keys or values as often as queries share it, one after the other.
Result<Tensor> RepeatHeads(Node& n, Tensor x, const Size& heads) {
  if (n.b.dim(x, 1) == heads) return x;
  const auto ratio = heads.DividedBy(n.b.dim(x, 1));
  if (!ratio) return Invalid("key heads do not divide query heads");
  TRY_ASSIGN(const Tensor grouped, n.b.Unsqueeze(x, 2));
  ir::Shape shape = n.b.shape(grouped);
  shape[2] = ir::DimOf(*ratio);
  TRY_ASSIGN(const Tensor repeated, n.b.Expand(grouped, shape));
  return n.b.Flatten(repeated, 1, 3);
}

constexpr double kNever = -std::numeric_limits<double>::infinity();

// What is added to scores of this type: 0 where true, minus infinity elsewhere.
Result<Tensor> AsBias(Node& n, Tensor mask, DType type) {
  if (n.b.dtype(mask) != DType::kBool) return n.b.Cast(mask, type);
  return n.b.Select(mask, n.b.Scalar(type, 0), n.b.Scalar(type, kNever));
}

// Sums of masks that may be absent.
Result<Tensor> Plus(Node& n, Tensor a, Tensor b) {
  return a.present() ? n.b.Binary(MapOp::kAdd, a, b) : Result<Tensor>(b);
}

// The mask operand, filled up to all keys.
Result<Tensor> MaskBias(Node& n, Tensor mask, const Size& keys, DType type) {
  TRY_ASSIGN(const Tensor bias, AsBias(n, mask, type));
  const int rank = n.b.rank(bias);
  if (rank < 2) return Invalid("the mask has fewer than two dimensions");
  const auto missing = keys.Minus(n.b.dim(bias, rank - 1));
  if (n.b.dim(bias, rank - 1) == Size(1) || missing == Size(0)) return bias;
  if (!missing || !missing->Constant() || *missing->Constant() < 0)
    return Unsupported("a mask that is not as long as the keys");
  std::vector<int64_t> before(static_cast<size_t>(rank)), after(before);
  after.back() = *missing->Constant();
  return n.b.Pad(bias, before, after, kNever);
}

// Query i sees keys up to past + i.
Result<Tensor> CausalBias(Node& n, const Size& queries, const Size& keys, const Size& past,
                          DType type) {
  const ir::Shape scores = {ir::DimOf(queries), ir::DimOf(keys)};
  TRY_ASSIGN(const Tensor row, n.b.Iota(scores, 0));
  TRY_ASSIGN(const Tensor column, n.b.Iota(scores, 1));
  TRY_ASSIGN(const Tensor last, n.b.Binary(MapOp::kAdd, row, n.b.SizeScalar(past)));
  TRY_ASSIGN(const Tensor seen, n.b.Binary(MapOp::kLessEqual, column, last));
  return AsBias(n, seen, type);
}

// Keys from counts[batch] on are padding.
Result<Tensor> PaddingBias(Node& n, Tensor counts, const Size& keys, DType type) {
  TRY_ASSIGN(const Tensor cast, n.b.Cast(counts, DType::kI64));
  const std::vector<Size> by_batch = {n.b.dim(counts, 0), 1, 1, 1};
  TRY_ASSIGN(const Tensor count, n.b.Reshape(cast, by_batch));
  TRY_ASSIGN(const Tensor place, n.b.Iota({ir::DimOf(keys)}, 0));
  TRY_ASSIGN(const Tensor kept, n.b.Binary(MapOp::kLess, place, count));
  return AsBias(n, kept, type);
}

struct Operands {
  Tensor q, k, v;  // [batch, heads, rows, size]
  Size past;       // rows of k that were there before
};

Result<Operands> ReadOperands(Node& n, bool is_flat) {
  Operands o{n.in(0), n.in(1), n.in(2), Size(0)};
  if (is_flat) {
    TRY_ASSIGN(o.q, SplitHeads(n, o.q, n.Int("q_num_heads", 0)));
    TRY_ASSIGN(o.k, SplitHeads(n, o.k, n.Int("kv_num_heads", 0)));
    TRY_ASSIGN(o.v, SplitHeads(n, o.v, n.Int("kv_num_heads", 0)));
  }
  for (const Tensor x : {o.q, o.k, o.v})
    if (n.b.rank(x) != 4) return Invalid("an operand is not [batch, heads, rows, size]");
  if (n.has(4)) {
    if (n.b.rank(n.in(4)) != 4) return Invalid("past_key is not [batch, heads, rows, size]");
    o.past = n.b.dim(n.in(4), 2);
    TRY_ASSIGN(o.k, n.b.Join(std::vector<Tensor>{n.in(4), o.k}, 2));
  }
  if (n.has(5)) {
    TRY_ASSIGN(o.v, n.b.Join(std::vector<Tensor>{n.in(5), o.v}, 2));
  }
  return o;
}

Result<Tensor> Softcapped(Node& n, Tensor scores) {
  const double cap = n.Real("softcap", 0);
  if (cap == 0) return scores;
  Formula f(n.b, {scores});
  const auto limit = f.Number(cap);
  f(MapOp::kMul, limit, f(MapOp::kTanh, f(MapOp::kDiv, f.Load(), limit)));
  return f.Done();
}

// softmax(softcap(q k' scale) + mask) v
Result<Values> Attention(Node& n) {
  const bool is_flat = n.b.rank(n.in(0)) == 3;
  TRY_ASSIGN(const Operands o, ReadOperands(n, is_flat));
  const DType type = n.b.dtype(o.q);
  const Size queries = n.b.dim(o.q, 2), keys = n.b.dim(o.k, 2);
  TRY_ASSIGN(const Tensor k, RepeatHeads(n, o.k, n.b.dim(o.q, 1)));
  TRY_ASSIGN(const Tensor v, RepeatHeads(n, o.v, n.b.dim(o.q, 1)));
  TRY_ASSIGN(const int64_t size, n.ConstantDim(o.q, 3));
  const double scale = n.Real("scale", 1 / std::sqrt(static_cast<double>(size)));
  // Half of the scale on each side, so that products of narrow floats stay in range.
  TRY_ASSIGN(const Tensor scaled_q, n.b.Binary(MapOp::kMul, o.q, std::sqrt(scale)));
  TRY_ASSIGN(const Tensor scaled_k, n.b.Binary(MapOp::kMul, k, std::sqrt(scale)));
  TRY_ASSIGN(const Tensor products, n.b.Contract(scaled_q, scaled_k, false, true));
  TRY_ASSIGN(const Tensor capped, Softcapped(n, products));
  Tensor bias;
  if (n.has(3)) {
    TRY_ASSIGN(bias, MaskBias(n, n.in(3), keys, type));
  }
  if (n.Int("is_causal", 0) != 0) {
    TRY_ASSIGN(const Tensor causal, CausalBias(n, queries, keys, o.past, type));
    TRY_ASSIGN(bias, Plus(n, bias, causal));
  }
  if (n.has(6)) {
    TRY_ASSIGN(const Tensor padding, PaddingBias(n, n.in(6), keys, type));
    TRY_ASSIGN(bias, Plus(n, bias, padding));
  }
  Tensor scores = capped;
  if (bias.present()) {
    TRY_ASSIGN(scores, n.b.Binary(MapOp::kAdd, capped, bias));
  }
  TRY_ASSIGN(const DType precise, n.TypeAttribute("softmax_precision", type));
  TRY_ASSIGN(const Tensor wide, n.b.Cast(scores, precise));
  TRY_ASSIGN(const Tensor shares, n.b.Softmax(wide, 3, false));
  TRY_ASSIGN(const Tensor weights, n.b.Cast(shares, type));
  TRY_ASSIGN(const Tensor values, n.b.Cast(v, type));
  TRY_ASSIGN(Tensor y, n.b.Contract(weights, values, false, false));
  if (is_flat) {
    TRY_ASSIGN(y, JoinHeads(n, y));
  }
  const int64_t mode = n.Int("qk_matmul_output_mode", 0);
  const Tensor shown = mode == 1 ? capped : mode == 2 ? scores : mode == 3 ? weights : products;
  return Values{y, o.k, o.v, shown};
}

// cos x1 - sin x2, sin x1 + cos x2
Result<std::pair<Tensor, Tensor>> Rotated(Node& n, Tensor x1, Tensor x2, Tensor cos, Tensor sin) {
  Formula real(n.b, {x1, x2, cos, sin}), imaginary(n.b, {x1, x2, cos, sin});
  real(MapOp::kSub, real(MapOp::kMul, real.Load(2), real.Load(0)),
       real(MapOp::kMul, real.Load(3), real.Load(1)));
  imaginary(MapOp::kAdd, imaginary(MapOp::kMul, imaginary.Load(3), imaginary.Load(0)),
            imaginary(MapOp::kMul, imaginary.Load(2), imaginary.Load(1)));
  TRY_ASSIGN(const Tensor first, real.Done());
  TRY_ASSIGN(const Tensor second, imaginary.Done());
  return std::pair(first, second);
}

// x [batch, heads, rows, size], or [batch, rows, heads * size].
Result<Tensor> RotaryEmbedding(Node& n) {
  Tensor x = n.in(0);
  const bool is_flat = n.b.rank(x) == 3;
  if (is_flat) {
    TRY_ASSIGN(x, SplitHeads(n, x, n.Int("num_heads", 0)));
  }
  if (n.b.rank(x) != 4) return Invalid("x has neither three nor four dimensions");
  TRY_ASSIGN(const int64_t size, n.ConstantDim(x, 3));
  int64_t rotated = n.Int("rotary_embedding_dim", 0);
  if (rotated == 0) rotated = size;
  if (rotated < 2 || rotated > size || rotated % 2 != 0) return Invalid("rotary_embedding_dim");
  Tensor cos = n.in(1), sin = n.in(2);
  if (n.has(3)) {
    TRY_ASSIGN(cos, n.b.Take(cos, n.in(3), 0));
    TRY_ASSIGN(sin, n.b.Take(sin, n.in(3), 0));
  }
  if (n.b.rank(cos) != 3 || n.b.rank(sin) != 3)
    return Invalid("caches are not [batch, rows, half]");
  TRY_ASSIGN(cos, n.b.Unsqueeze(cos, 1));
  TRY_ASSIGN(sin, n.b.Unsqueeze(sin, 1));
  const int64_t half = rotated / 2;
  const bool interleaved = n.Int("interleaved", 0) != 0;
  const int64_t step = interleaved ? 2 : 1;
  TRY_ASSIGN(const Tensor x1, n.b.Slice(x, 3, Size(0), Size(interleaved ? rotated : half), step));
  TRY_ASSIGN(const Tensor x2, n.b.Slice(x, 3, Size(interleaved ? 1 : half), Size(rotated), step));
  TRY_ASSIGN(const auto pair, Rotated(n, x1, x2, cos, sin));
  Tensor y;
  if (interleaved) {
    TRY_ASSIGN(y, n.b.Stack(std::vector<Tensor>{pair.first, pair.second}, 4));
    TRY_ASSIGN(y, n.b.Flatten(y, 3, 5));
  } else {
    TRY_ASSIGN(y, n.b.Join(std::vector<Tensor>{pair.first, pair.second}, 3));
  }
  if (rotated < size) {
    TRY_ASSIGN(const Tensor rest, n.b.Slice(x, 3, Size(rotated), std::nullopt));
    TRY_ASSIGN(y, n.b.Join(std::vector<Tensor>{y, rest}, 3));
  }
  return is_flat ? JoinHeads(n, y) : Result<Tensor>(y);
}

// Depthwise, over what came before and x; what the next call needs is an output.
Result<Values> CausalConvWithState(Node& n) {
  const Tensor x = n.in(0), w = n.in(1);
  if (n.b.rank(x) != 3 || n.b.rank(w) != 3) return Invalid("x or weight is not of rank 3");
  TRY_ASSIGN(const int64_t kernel, n.ConstantDim(w, 2));
  TRY_ASSIGN(const int64_t channels, n.ConstantDim(x, 1));
  Tensor padded = x;
  if (kernel == 1 && n.wants(1)) return Unsupported("a kernel of one, whose state is empty");
  if (kernel == 1) {
    // nothing before x takes part
  } else if (n.has(3)) {
    TRY_ASSIGN(padded, n.b.Join(std::vector<Tensor>{n.in(3), x}, 2));
  } else {
    TRY_ASSIGN(padded, n.b.Pad(x, {0, 0, kernel - 1}, {0, 0, 0}, 0));
  }
  const TensorBuilder::Window window = {{kernel}, {1}, {0}, {0}, {1}};
  TRY_ASSIGN(Tensor y, n.b.Conv(padded, w, n.in(2), window, channels));
  const std::string activation = n.Text("activation", "none");
  if (activation == "silu" || activation == "swish") {
    TRY_ASSIGN(y, n.b.Silu(y));
  } else if (activation != "none") {
    return Unsupported("activation '" + activation + "'");
  }
  if (!n.wants(1)) return Values{y};
  TRY_ASSIGN(const Tensor state, n.b.Slice(padded, 2, Size(1 - kernel), std::nullopt));
  return Values{y, state};
}

constexpr Operator kOperators[] = {
    {"", "Attention", Attention, 3},
    {"", "RotaryEmbedding", One<RotaryEmbedding>, 3},
    {"", "CausalConvWithState", CausalConvWithState, 2},
};

}  // namespace

std::span<const Operator> AttentionOperators() { return kOperators; }

}  // namespace millpower::import::onnx
