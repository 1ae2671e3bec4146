// RNN, GRU, LSTM and linear attention, unrolled over a constant number of steps.
#include <algorithm>
#include <cmath>

#include "import/onnx/formula.h"
#include "import/onnx/node.h"

namespace millpower::import::onnx {
namespace {

constexpr int64_t kMaxSteps = 1024;  // in all directions

struct Activation {
  std::string name;
  double alpha = 0, beta = 0;
};

struct ActivationInfo {
  const char* name;
  bool takes_alpha, takes_beta;
  double alpha, beta;  // when none are given
};
constexpr ActivationInfo kActivations[] = {
    {"Relu", false, false, 0, 0},        {"Tanh", false, false, 0, 0},
    {"Sigmoid", false, false, 0, 0},     {"Softsign", false, false, 0, 0},
    {"Softplus", false, false, 0, 0},    {"Affine", true, true, 1, 0},
    {"LeakyRelu", true, false, 0.01, 0}, {"ThresholdedRelu", true, false, 1, 0},
    {"ScaledTanh", true, true, 1, 1},    {"HardSigmoid", true, true, 0.2, 0.5},
    {"Elu", true, false, 1, 0},
};

// `count` activations for each direction; alphas and betas go to those that take them, in order.
Result<std::vector<Activation>> ReadActivations(Node& n, int64_t directions,
                                                const std::vector<std::string>& usual) {
  std::vector<std::string> names = n.Texts("activations");
  const size_t count = usual.size() * static_cast<size_t>(directions);
  if (names.empty())
    for (size_t i = 0; i < count; ++i) names.push_back(usual[i % usual.size()]);
  if (names.size() != count) return Invalid("activations are not as many as there are gates");
  const std::vector<double> alphas = n.Reals("activation_alpha"),
                            betas = n.Reals("activation_beta");
  size_t alpha = 0, beta = 0;
  std::vector<Activation> activations;
  for (const std::string& name : names) {
    const auto* info = std::ranges::find_if(
        kActivations, [&](const ActivationInfo& one) { return name == one.name; });
    if (info == std::end(kActivations)) return Unsupported("activation '" + name + "'");
    Activation one{name, info->alpha, info->beta};
    if (info->takes_alpha && alpha < alphas.size()) one.alpha = alphas[alpha++];
    if (info->takes_beta && beta < betas.size()) one.beta = betas[beta++];
    activations.push_back(one);
  }
  return activations;
}

Formula::Id Apply(Formula& f, const Activation& a, Formula::Id x) {
  const auto affine = [&] {
    return f(MapOp::kAdd, f(MapOp::kMul, x, f.Number(a.alpha)), f.Number(a.beta));
  };
  if (a.name == "Relu") return f(MapOp::kRelu, x);
  if (a.name == "Tanh") return f(MapOp::kTanh, x);
  if (a.name == "Sigmoid") return f(MapOp::kSigmoid, x);
  if (a.name == "Softplus") return f(MapOp::kSoftplus, x);
  if (a.name == "Affine") return affine();
  if (a.name == "HardSigmoid") return f.Clamp(affine(), 0, 1);
  if (a.name == "Softsign")
    return f(MapOp::kDiv, x, f(MapOp::kAdd, f.Number(1), f(MapOp::kAbs, x)));
  if (a.name == "ScaledTanh") {
    const auto inside = f(MapOp::kMul, x, f.Number(a.beta));
    return f(MapOp::kMul, f(MapOp::kTanh, inside), f.Number(a.alpha));
  }
  const auto is_above =
      f.Is(MapOp::kGreater, x, f.Number(a.name == "ThresholdedRelu" ? a.alpha : 0));
  if (a.name == "ThresholdedRelu") return f.Select(is_above, x, f.Number(0));
  if (a.name == "LeakyRelu") return f.Select(is_above, x, f(MapOp::kMul, x, f.Number(a.alpha)));
  const auto grown = f(MapOp::kSub, f(MapOp::kExp, x), f.Number(1));  // Elu
  return f.Select(is_above, x, f(MapOp::kMul, grown, f.Number(a.alpha)));
}

// One direction of a node: operands without the dimension of directions.
struct Direction {
  Tensor steps_in;   // [steps, batch, gates * hidden]: x times W' plus biases
  Tensor r;          // [gates * hidden, hidden]
  Tensor r_bias;     // [gates * hidden]; of GRU only, where it is not in steps_in
  Tensor peepholes;  // [3 * hidden] of LSTM, may be absent
  Tensor lengths;    // [batch, 1], may be absent
  Tensor h, c;       // [batch, hidden]: the state
  int64_t hidden = 0;
  double clip = 0;
  bool reversed = false;
  std::vector<Activation> activations;
};

Formula::Id Clipped(Formula& f, const Direction& d, Formula::Id x) {
  return d.clip > 0 ? f.Clamp(x, -d.clip, d.clip) : x;
}

Result<Tensor> Gate(Node& n, Tensor all, int64_t gate, int64_t hidden) {
  return n.b.Slice(all, n.b.rank(all) - 1, Size(gate * hidden), Size((gate + 1) * hidden));
}

// activation(a + b [+ peephole * cell])
Result<Tensor> Activated(Node& n, const Direction& d, const Activation& activation, Tensor a,
                         Tensor b, Tensor peephole = {}, Tensor cell = {}) {
  std::vector<Tensor> operands = {a, b};
  if (peephole.present()) operands.insert(operands.end(), {peephole, cell});
  Formula f(n.b, operands);
  auto sum = f(MapOp::kAdd, f.Load(0), f.Load(1));
  if (peephole.present()) sum = f(MapOp::kAdd, sum, f(MapOp::kMul, f.Load(2), f.Load(3)));
  Apply(f, activation, Clipped(f, d, sum));
  return f.Done();
}

struct State {
  Tensor h, c;
};

Result<State> RnnStep(Node& n, const Direction& d, Tensor x, const State& s) {
  TRY_ASSIGN(const Tensor recurrent, n.b.Contract(s.h, d.r, false, true));
  TRY_ASSIGN(const Tensor h, Activated(n, d, d.activations[0], x, recurrent));
  return State{h, s.c};
}

// Gates z, r, h: H = (1 - z) h + z H
Result<State> GruStep(Node& n, const Direction& d, Tensor x, const State& s) {
  const bool linear_first = n.Int("linear_before_reset", 0) != 0;
  TRY_ASSIGN(const Tensor product, n.b.Contract(s.h, d.r, false, true));
  TRY_ASSIGN(const Tensor recurrent, n.b.Binary(MapOp::kAdd, product, d.r_bias));
  Tensor xs[3], rs[3];
  for (int gate = 0; gate < 3; ++gate) {
    TRY_ASSIGN(xs[gate], Gate(n, x, gate, d.hidden));
    TRY_ASSIGN(rs[gate], Gate(n, recurrent, gate, d.hidden));
  }
  TRY_ASSIGN(const Tensor z, Activated(n, d, d.activations[0], xs[0], rs[0]));
  TRY_ASSIGN(const Tensor r, Activated(n, d, d.activations[0], xs[1], rs[1]));
  Tensor inner;
  if (linear_first) {
    TRY_ASSIGN(inner, n.b.Binary(MapOp::kMul, r, rs[2]));
  } else {
    TRY_ASSIGN(const Tensor reset, n.b.Binary(MapOp::kMul, r, s.h));
    TRY_ASSIGN(const Tensor weight, n.b.Slice(d.r, 0, Size(2 * d.hidden), std::nullopt));
    TRY_ASSIGN(const Tensor bias, Gate(n, d.r_bias, 2, d.hidden));
    TRY_ASSIGN(const Tensor reset_product, n.b.Contract(reset, weight, false, true));
    TRY_ASSIGN(inner, n.b.Binary(MapOp::kAdd, reset_product, bias));
  }
  TRY_ASSIGN(const Tensor next, Activated(n, d, d.activations[1], xs[2], inner));
  Formula f(n.b, {z, next, s.h});
  const auto share = f.Load(0);
  const auto fresh = f(MapOp::kMul, f(MapOp::kSub, f.Number(1), share), f.Load(1));
  f(MapOp::kAdd, fresh, f(MapOp::kMul, share, f.Load(2)));
  TRY_ASSIGN(const Tensor h, f.Done());
  return State{h, s.c};
}

// Gates i, o, f, c: C = f C + i c, H = o h(C)
Result<State> LstmStep(Node& n, const Direction& d, Tensor x, const State& s) {
  TRY_ASSIGN(const Tensor recurrent, n.b.Contract(s.h, d.r, false, true));
  Tensor xs[4], rs[4], ps[3];
  for (int gate = 0; gate < 4; ++gate) {
    TRY_ASSIGN(xs[gate], Gate(n, x, gate, d.hidden));
    TRY_ASSIGN(rs[gate], Gate(n, recurrent, gate, d.hidden));
    if (gate < 3 && d.peepholes.present()) {
      TRY_ASSIGN(ps[gate], Gate(n, d.peepholes, gate, d.hidden));
    }
  }
  const Activation& f_of = d.activations[0];
  TRY_ASSIGN(const Tensor i, Activated(n, d, f_of, xs[0], rs[0], ps[0], s.c));
  Tensor forget;
  if (n.Int("input_forget", 0) != 0) {
    TRY_ASSIGN(forget, n.b.Binary(MapOp::kSub, n.b.Scalar(n.b.dtype(i), 1), i));
  } else {
    TRY_ASSIGN(forget, Activated(n, d, f_of, xs[2], rs[2], ps[2], s.c));
  }
  TRY_ASSIGN(const Tensor next, Activated(n, d, d.activations[1], xs[3], rs[3]));
  Formula cell(n.b, {forget, s.c, i, next});
  cell(MapOp::kAdd, cell(MapOp::kMul, cell.Load(0), cell.Load(1)),
       cell(MapOp::kMul, cell.Load(2), cell.Load(3)));
  TRY_ASSIGN(const Tensor c, cell.Done());
  TRY_ASSIGN(const Tensor o, Activated(n, d, f_of, xs[1], rs[1], ps[1], c));
  Formula out(n.b, {o, c});
  const auto gate = out.Load(0);
  out(MapOp::kMul, gate, Apply(out, d.activations[2], Clipped(out, d, out.Load(1))));
  TRY_ASSIGN(const Tensor h, out.Done());
  return State{h, c};
}

using Step = Result<State> (*)(Node&, const Direction&, Tensor, const State&);

struct Unrolled {
  std::vector<Tensor> ys;  // by time, [batch, hidden]
  State last;
};

// Rows whose sequence is over keep their state and give zeros.
Result<Unrolled> Unroll(Node& n, const Direction& d, int64_t steps, Step step) {
  Unrolled run;
  run.ys.resize(static_cast<size_t>(steps));
  run.last = {d.h, d.c};
  for (int64_t i = 0; i < steps; ++i) {
    const int64_t t = d.reversed ? steps - 1 - i : i;
    TRY_ASSIGN(const Tensor x, n.b.Pick(d.steps_in, 0, t));
    TRY_ASSIGN(State next, step(n, d, x, run.last));
    Tensor y = next.h;
    if (d.lengths.present()) {
      TRY_ASSIGN(const Tensor goes_on,
                 n.b.Binary(MapOp::kGreater, d.lengths, static_cast<double>(t)));
      TRY_ASSIGN(y, n.b.Select(goes_on, next.h, n.b.Scalar(n.b.dtype(next.h), 0)));
      TRY_ASSIGN(next.h, n.b.Select(goes_on, next.h, run.last.h));
      if (next.c.present()) {
        TRY_ASSIGN(next.c, n.b.Select(goes_on, next.c, run.last.c));
      }
    }
    run.ys[static_cast<size_t>(t)] = y;
    run.last = next;
  }
  return run;
}

struct Kind {
  int64_t gates;
  std::vector<std::string> activations;
  Step step;
  bool has_cell, keeps_bias;
};

// Biases [W ..., R ...] of a direction, or zeros.
Result<void> AddBiases(Node& n, const Kind& kind, int64_t direction, Direction& d) {
  const int64_t size = kind.gates * d.hidden;
  const DType type = n.b.dtype(d.steps_in);
  Tensor input, recurrent;
  if (n.has(3)) {
    TRY_ASSIGN(const Tensor both, n.b.Pick(n.in(3), 0, direction));
    TRY_ASSIGN(input, n.b.Slice(both, 0, Size(0), Size(size)));
    TRY_ASSIGN(recurrent, n.b.Slice(both, 0, Size(size), std::nullopt));
    TRY_ASSIGN(d.steps_in, n.b.Binary(MapOp::kAdd, d.steps_in, input));
  } else {
    TRY_ASSIGN(recurrent, n.b.Fill({ir::Constant(size)}, type, 0));
  }
  if (kind.keeps_bias) {
    d.r_bias = recurrent;
  } else {
    TRY_ASSIGN(d.steps_in, n.b.Binary(MapOp::kAdd, d.steps_in, recurrent));
  }
  return {};
}

// An initial state [directions, batch, hidden], or zeros.
Result<Tensor> Initial(Node& n, size_t operand, int64_t direction, bool batch_first, Tensor x,
                       int64_t hidden) {
  if (!n.has(operand))
    return n.b.Fill({ir::DimOf(n.b.dim(x, 1)), ir::Constant(hidden)}, n.b.dtype(x), 0);
  return n.b.Pick(n.in(operand), batch_first ? 1 : 0, direction);
}

Result<Direction> ReadDirection(Node& n, const Kind& kind, Tensor x, int64_t direction,
                                bool batch_first) {
  Direction d;
  TRY_ASSIGN(d.r, n.b.Pick(n.in(2), 0, direction));
  if (n.b.rank(d.r) != 2) return Invalid("R is not [directions, gates * hidden, hidden]");
  TRY_ASSIGN(d.hidden, n.ConstantDim(d.r, 1));
  if (n.b.dim(d.r, 0) != Size(kind.gates * d.hidden)) return Invalid("R does not fit its gates");
  TRY_ASSIGN(const Tensor w, n.b.Pick(n.in(1), 0, direction));
  TRY_ASSIGN(d.steps_in, n.b.Linear(x, w, Tensor{}));
  TRY(AddBiases(n, kind, direction, d));
  TRY_ASSIGN(d.h, Initial(n, 5, direction, batch_first, x, d.hidden));
  if (kind.has_cell) {
    TRY_ASSIGN(d.c, Initial(n, 6, direction, batch_first, x, d.hidden));
    if (n.has(7)) {
      TRY_ASSIGN(d.peepholes, n.b.Pick(n.in(7), 0, direction));
    }
  }
  if (n.has(4)) {
    TRY_ASSIGN(d.lengths, n.b.Unsqueeze(n.in(4), 1));
  }
  d.clip = n.Real("clip", 0);
  return d;
}

// Operands x, W, R, B, sequence_lens, initial_h, initial_c, P; outputs Y, Y_h, Y_c.
Result<Values> Recurrent(Node& n, const Kind& kind) {
  const bool batch_first = n.Int("layout", 0) != 0;
  Tensor x = n.in(0);
  if (n.b.rank(x) != 3 || n.b.rank(n.in(1)) != 3 || n.b.rank(n.in(2)) != 3)
    return Invalid("X, W or R has not three dimensions");
  if (batch_first) {
    TRY_ASSIGN(x, n.b.Transpose(x, {1, 0, 2}));
  }
  const std::string way = n.Text("direction", "forward");
  const int64_t directions = way == "bidirectional" ? 2 : 1;
  TRY_ASSIGN(const int64_t steps, n.ConstantDim(x, 0));
  if (steps * directions > kMaxSteps) return Unsupported("more than 1024 steps");
  TRY_ASSIGN(const auto activations, ReadActivations(n, directions, kind.activations));
  std::vector<std::vector<Tensor>> ys(static_cast<size_t>(steps));
  std::vector<Tensor> hs, cs;
  for (int64_t i = 0; i < directions; ++i) {
    TRY_ASSIGN(Direction d, ReadDirection(n, kind, x, i, batch_first));
    d.reversed = way == "reverse" || i == 1;
    const auto first =
        activations.begin() + i * static_cast<std::ptrdiff_t>(kind.activations.size());
    d.activations.assign(first, first + static_cast<std::ptrdiff_t>(kind.activations.size()));
    TRY_ASSIGN(const Unrolled run, Unroll(n, d, steps, kind.step));
    for (size_t t = 0; t < run.ys.size(); ++t) ys[t].push_back(run.ys[t]);
    hs.push_back(run.last.h);
    if (kind.has_cell) cs.push_back(run.last.c);
  }
  std::vector<Tensor> by_step;
  for (const std::vector<Tensor>& y : ys) {
    TRY_ASSIGN(const Tensor both, n.b.Stack(y, batch_first ? 1 : 0));
    by_step.push_back(both);
  }
  TRY_ASSIGN(const Tensor y, n.b.Stack(by_step, batch_first ? 1 : 0));
  TRY_ASSIGN(const Tensor h, n.b.Stack(hs, batch_first ? 1 : 0));
  Values outputs = {y, h};
  if (kind.has_cell) {
    TRY_ASSIGN(const Tensor c, n.b.Stack(cs, batch_first ? 1 : 0));
    outputs.push_back(c);
  }
  return outputs;
}

Result<Values> Rnn(Node& n) { return Recurrent(n, {1, {"Tanh"}, RnnStep, false, false}); }
Result<Values> Gru(Node& n) { return Recurrent(n, {3, {"Sigmoid", "Tanh"}, GruStep, false, true}); }
Result<Values> Lstm(Node& n) {
  return Recurrent(n, {4, {"Sigmoid", "Tanh", "Tanh"}, LstmStep, true, false});
}

// ---- linear attention ----

// [batch, steps, heads * size] -> [steps, batch, heads, size], in f32
Result<Tensor> ByStep(Node& n, Tensor x, int64_t heads) {
  if (n.b.rank(x) != 3 || heads < 1)
    return Invalid("an operand is not [batch, steps, heads * size]");
  const auto size = n.b.dim(x, 2).DividedBy(heads);
  if (!size) return Invalid("heads do not divide the last dimension");
  TRY_ASSIGN(const Tensor wide, n.b.Cast(x, DType::kF32));
  const std::vector<Size> cut = {n.b.dim(x, 0), n.b.dim(x, 1), heads, *size};
  TRY_ASSIGN(const Tensor split, n.b.Reshape(wide, cut));
  return n.b.Transpose(split, {1, 0, 2, 3});
}

// S = exp(decay) S + beta k (v - S' k)', and what q reads of it. Without decay and beta, plain
// sums.
struct LinearStep {
  Tensor q, k, v, decay, beta;
};
Result<Tensor> NextState(Node& n, const LinearStep& s, Tensor state) {
  if (s.decay.present()) {
    TRY_ASSIGN(const Tensor factor, n.b.Unary(MapOp::kExp, s.decay));
    TRY_ASSIGN(const Tensor column, n.b.Unsqueeze(factor, 3));
    TRY_ASSIGN(state, n.b.Binary(MapOp::kMul, state, column));
  }
  TRY_ASSIGN(const Tensor key, n.b.Unsqueeze(s.k, 3));  // [batch, heads, key, 1]
  TRY_ASSIGN(Tensor value, n.b.Unsqueeze(s.v, 2));      // [batch, heads, 1, value]
  if (s.beta.present()) {
    TRY_ASSIGN(const Tensor read, n.b.Contract(key, state, true, false));
    TRY_ASSIGN(const Tensor left, n.b.Binary(MapOp::kSub, value, read));
    TRY_ASSIGN(const Tensor rate, n.b.Unsqueeze(s.beta, 3));
    TRY_ASSIGN(value, n.b.Binary(MapOp::kMul, left, rate));
  }
  TRY_ASSIGN(const Tensor written, n.b.Binary(MapOp::kMul, key, value));
  return n.b.Binary(MapOp::kAdd, state, written);
}

// Queries [batch, heads, size], of which several share a state.
Result<Tensor> ReadState(Node& n, Tensor q, Tensor state, double scale) {
  const auto shared = n.b.dim(q, 1).DividedBy(n.b.dim(state, 1));
  if (!shared) return Invalid("key heads do not divide query heads");
  const std::vector<Size> grouped = {n.b.dim(q, 0), n.b.dim(state, 1), *shared, n.b.dim(q, 2)};
  TRY_ASSIGN(const Tensor rows, n.b.Reshape(q, grouped));
  TRY_ASSIGN(const Tensor read, n.b.Contract(rows, state, false, false));
  TRY_ASSIGN(const Tensor scaled, n.b.Binary(MapOp::kMul, read, scale));
  return n.b.Flatten(scaled, 1, 4);  // [batch, heads * size]
}

Result<Values> LinearAttention(Node& n) {
  const std::string rule = n.Text("update_rule", "gated_delta");
  if (rule != "linear" && rule != "gated" && rule != "delta" && rule != "gated_delta")
    return Unsupported("update_rule '" + rule + "'");
  const int64_t heads = n.Int("q_num_heads", 0), key_heads = n.Int("kv_num_heads", 0);
  LinearStep all;
  TRY_ASSIGN(all.q, ByStep(n, n.in(0), heads));
  TRY_ASSIGN(all.k, ByStep(n, n.in(1), key_heads));
  TRY_ASSIGN(all.v, ByStep(n, n.in(2), key_heads));
  if (rule.starts_with("gated")) {
    if (!n.has(4)) return Invalid("decay is missing");
    TRY_ASSIGN(all.decay, ByStep(n, n.in(4), key_heads));
  }
  if (rule.ends_with("delta")) {
    if (!n.has(5)) return Invalid("beta is missing");
    TRY_ASSIGN(all.beta, ByStep(n, n.in(5), n.b.dim(n.in(5), 2) == Size(1) ? 1 : key_heads));
  }
  TRY_ASSIGN(const int64_t steps, n.ConstantDim(all.q, 0));
  TRY_ASSIGN(const int64_t size, n.ConstantDim(all.q, 3));
  if (steps > kMaxSteps) return Unsupported("more than 1024 steps");
  double scale = n.Real("scale", 0);
  if (scale == 0) scale = 1 / std::sqrt(static_cast<double>(size));
  const ir::Shape empty = {ir::DimOf(n.b.dim(all.k, 1)), ir::Constant(key_heads),
                           ir::DimOf(n.b.dim(all.k, 3)), ir::DimOf(n.b.dim(all.v, 3))};
  TRY_ASSIGN(Tensor state,
             n.has(3) ? n.b.Cast(n.in(3), DType::kF32) : n.b.Fill(empty, DType::kF32, 0));
  std::vector<Tensor> rows;
  for (int64_t t = 0; t < steps; ++t) {
    LinearStep one;
    for (Tensor LinearStep::* part :
         {&LinearStep::q, &LinearStep::k, &LinearStep::v, &LinearStep::decay, &LinearStep::beta}) {
      if (!(all.*part).present()) continue;
      TRY_ASSIGN(one.*part, n.b.Pick(all.*part, 0, t));
    }
    TRY_ASSIGN(state, NextState(n, one, state));
    TRY_ASSIGN(const Tensor row, ReadState(n, one.q, state, scale));
    rows.push_back(row);
  }
  TRY_ASSIGN(const Tensor stacked, n.b.Stack(rows, 1));
  TRY_ASSIGN(const Tensor y, n.b.Cast(stacked, n.b.dtype(n.in(0))));
  TRY_ASSIGN(const Tensor last, n.b.Cast(state, n.b.dtype(n.has(3) ? n.in(3) : n.in(0))));
  return Values{y, last};
}

constexpr Operator kOperators[] = {
    {"", "RNN", Rnn, 3},
    {"", "GRU", Gru, 3},
    {"", "LSTM", Lstm, 3},
    {"", "LinearAttention", LinearAttention, 3},
};

}  // namespace

std::span<const Operator> RecurrentOperators() { return kOperators; }

}  // namespace millpower::import::onnx
