// Graphs compiled, packed and run on the CPU device, against an interpreter of the graph in float64
// that knows nothing of any of these: every weight type, dense layers and experts, however files
// hold them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/blocks.h"
#include "compile/compile.h"
#include "compile/test_graph.h"
#include "device/cpu/cpu_device.h"
#include "isa/encoding.h"

namespace millpower {
namespace {

using compile::Builder;
using compile::Sizes;
using compile::Tensors;
using ir::Op;
using ir::ValueId;

// [rows][cols] of each value.
using Matrix = std::vector<std::vector<double>>;

// One launch: sequences of these lengths, each from position 0 on, all rows picked.
struct Work {
  std::vector<int32_t> tokens, positions, sequences, pages, picked;
  int64_t seqs = 0;

  explicit Work(const std::vector<int>& lengths, int64_t vocab, uint64_t seed) {
    Rng rng(seed);
    int32_t page = 0;
    for (const int length : lengths) {
      const auto begin = static_cast<int32_t>(tokens.size());
      for (const int32_t word : {begin, length, 0, static_cast<int32_t>(pages.size())})
        sequences.push_back(word);
      for (int32_t i = 0; i < length; ++i) {
        if (i % isa::kPagePositions == 0) pages.push_back(page++);
        picked.push_back(static_cast<int32_t>(tokens.size()));
        tokens.push_back(static_cast<int32_t>(rng.Below(static_cast<uint64_t>(vocab))));
        positions.push_back(i);
      }
      ++seqs;
    }
  }

  // Rows [begin, end) of a work of one sequence.
  Work Piece(int32_t begin, int32_t end) const {
    Work piece = *this;
    auto cut = [&](std::vector<int32_t>& rows) {
      rows.assign(rows.begin() + begin, rows.begin() + end);
    };
    cut(piece.tokens);
    cut(piece.positions);
    piece.picked.resize(piece.tokens.size());
    piece.sequences = {0, end - begin, begin, 0};
    return piece;
  }
};

// Computes the graph's logits as its operators are defined, in float64.
class Interpreter {
 public:
  Interpreter(const ir::Graph& graph, const Tensors& tensors, const Work& work,
              const compile::Options& options)
      : graph_(graph), tensors_(tensors), work_(work), options_(options) {}

  Matrix Run(const std::string& output) {
    for (const ir::Node& node : graph_.nodes()) {
      if (node.op == Op::kSample) continue;
      values_[node.output] = Compute(node);
    }
    return values_.at(graph_.FindValue(output));
  }

 private:
  // Row `row` of a weight, its dimensions but the last taken together; rounded to what it is asked
  // to be stored as.
  std::vector<float> Row(ValueId id, int64_t row, bool matrix = true, bool router = false) const {
    const ir::Value& weight = graph_.value(id);
    std::vector<float> values;
    if (!weight.values.empty()) return weight.values;
    if (!matrix) {  // a tensor of one dimension
      for (int64_t i = 0; i < weight.shape[0].size; ++i)
        values.push_back(tensors_.At(weight.name, i, 0));
      return values;
    }
    if (weight.slices.empty()) values = tensors_.Row(weight.name, row);
    for (const ir::TensorSlice& slice : weight.slices) {
      if (values.empty() && row < slice.rows)
        values = tensors_.Row(slice.tensor, slice.first_row + row);
      row -= slice.rows;
    }
    const std::optional<DType> type = options_.weight_type;
    if (!type || *type == weight.dtype || (router && IsQuantisedType(*type))) return values;
    if (*type == DType::kBf16)
      for (float& value : values) value = Bf16ToF32(F32ToBf16(value));
    if (*type == DType::kF8E4M3) {
      float largest = 0;
      for (const float value : values) largest = std::max(largest, std::abs(value));
      for (float& value : values)
        value = F8E4M3ToF32(F32ToF8E4M3(value * (448 / largest))) * (largest / 448);
    }
    if (!IsBlockType(*type)) return values;
    const size_t size = values.size();
    values.resize((size + 31) / 32 * 32, 0.0f);
    std::vector<std::byte> blocks(values.size() / 32 * 34);
    const auto count = static_cast<int64_t>(values.size());
    if (*type == DType::kQ8_0)
      QuantiseQ8_0(values.data(), count, blocks.data());
    else
      QuantiseQ4_0(values.data(), count, blocks.data());
    Dequantise(*type, blocks.data(), count, values.data());
    values.resize(size);
    return values;
  }

  static double Dot(const std::vector<double>& x, const std::vector<float>& w) {
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += x[i] * static_cast<double>(w[i]);
    return sum;
  }
  // x times rows [first, first + n) of a weight.
  std::vector<double> Product(const std::vector<double>& x, ValueId weight, int64_t first,
                              int64_t n, bool router = false) const {
    std::vector<double> y;
    for (int64_t i = 0; i < n; ++i) y.push_back(Dot(x, Row(weight, first + i, true, router)));
    return y;
  }
  static double Silu(double x) { return x / (1 + std::exp(-x)); }

  Matrix Compute(const ir::Node& node) {
    const auto& in = node.inputs;
    auto integer = [&](const char* name) { return ir::IntAttribute(node, name); };
    Matrix y;
    switch (node.op) {
      case Op::kEmbedding:
        for (const int32_t token : work_.tokens) {
          const std::vector<float> row = Row(in[0], token);
          y.emplace_back(row.begin(), row.end());
        }
        return y;
      case Op::kRmsNorm: {
        const std::vector<float> weight = Row(in[1], 0, false);
        y = values_.at(in[0]);
        const auto group = static_cast<size_t>(integer("group"));
        for (auto& row : y)
          for (size_t first = 0; first < row.size(); first += group) {
            double sum = 0;
            for (size_t i = 0; i < group; ++i) sum += row[first + i] * row[first + i];
            const double inverse = 1 / std::sqrt(sum / static_cast<double>(group) +
                                                 ir::FloatAttribute(node, "epsilon"));
            for (size_t i = 0; i < group; ++i)
              row[first + i] *= inverse * static_cast<double>(weight[i]);
          }
        return y;
      }
      case Op::kLinear:
        for (const auto& x : values_.at(in[0])) {
          y.push_back(Product(x, in[1], 0, graph_.value(in[1]).shape[0].size));
          if (in[2] == ir::kNoValue) continue;
          const std::vector<float> bias = Row(in[2], 0, false);
          for (size_t i = 0; i < bias.size(); ++i) y.back()[i] += static_cast<double>(bias[i]);
        }
        return y;
      case Op::kSilu:
        y = values_.at(in[0]);
        for (auto& row : y)
          for (double& value : row) value = Silu(value);
        return y;
      case Op::kMul:
      case Op::kAdd:
        y = values_.at(in[0]);
        for (size_t r = 0; r < y.size(); ++r)
          for (size_t c = 0; c < y[r].size(); ++c) {
            const double other = values_.at(in[1])[r][c];
            y[r][c] = node.op == Op::kMul ? y[r][c] * other : y[r][c] + other;
          }
        return y;
      case Op::kRopeTable: {
        const std::vector<float> frequencies = Row(in[1], 0, false);
        for (const int32_t position : work_.positions) {
          std::vector<double> row;
          for (const float frequency : frequencies)
            row.push_back(std::cos(position * static_cast<double>(frequency)));
          for (const float frequency : frequencies)
            row.push_back(std::sin(position * static_cast<double>(frequency)));
          y.push_back(row);
        }
        return y;
      }
      case Op::kRope: {
        y = values_.at(in[0]);
        const size_t half = y[0].size() / static_cast<size_t>(integer("heads")) / 2;
        for (size_t r = 0; r < y.size(); ++r)
          for (size_t first = 0; first < y[r].size(); first += 2 * half)
            for (size_t i = 0; i < half; ++i) {
              const double a = y[r][first + i], b = y[r][first + half + i];
              const double c = values_.at(in[1])[r][i], s = values_.at(in[1])[r][half + i];
              y[r][first + i] = a * c - b * s;
              y[r][first + half + i] = b * c + a * s;
            }
        return y;
      }
      case Op::kAttention:
        return Attention(node);
      case Op::kSelectRows:
        for (const int32_t row : work_.picked)
          y.push_back(values_.at(in[0])[static_cast<size_t>(row)]);
        return y;
      case Op::kExperts:
        return Experts(node);
      default:
        CHECK(false) << ir::Name(node.op);
        return y;
    }
  }

  Matrix Attention(const ir::Node& node) {
    const Matrix& q = values_.at(node.inputs[0]);
    const Matrix& k = values_.at(node.inputs[1]);
    const Matrix& v = values_.at(node.inputs[2]);
    const auto heads = static_cast<size_t>(ir::IntAttribute(node, "heads"));
    const auto kv_heads = static_cast<size_t>(ir::IntAttribute(node, "kv_heads"));
    const size_t dim = q[0].size() / heads;
    Matrix y(q.size(), std::vector<double>(q[0].size(), 0.0));
    for (size_t r = 0; r < q.size(); ++r) {
      const auto window = static_cast<size_t>(ir::IntAttribute(node, "window"));
      const size_t first = r - static_cast<size_t>(work_.positions[r]);
      const size_t begin = window > 0 && r + 1 > first + window ? r + 1 - window : first;
      for (size_t h = 0; h < heads; ++h) {
        const size_t kv = h / (heads / kv_heads) * dim;
        std::vector<double> e;
        for (size_t p = begin; p <= r; ++p) {
          double score = 0;
          for (size_t d = 0; d < dim; ++d) score += q[r][h * dim + d] * k[p][kv + d];
          e.push_back(std::exp(score * ir::FloatAttribute(node, "scale")));
        }
        const double total = std::accumulate(e.begin(), e.end(), 0.0);
        for (size_t p = begin; p <= r; ++p)
          for (size_t d = 0; d < dim; ++d) y[r][h * dim + d] += e[p - begin] / total * v[p][kv + d];
      }
    }
    return y;
  }

  Matrix Experts(const ir::Node& node) {
    const auto& in = node.inputs;
    const int64_t experts = graph_.value(in[2]).shape[0].size;
    const int64_t inner = graph_.value(in[2]).shape[1].size;
    const int64_t hidden = graph_.value(in[2]).shape[2].size;
    Matrix y;
    for (const auto& x : values_.at(in[0])) {
      const std::vector<double> logits = Product(x, in[1], 0, experts, true);
      std::vector<int64_t> order(logits.size());
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, [&](int64_t a, int64_t b) {
        return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
      });
      order.resize(static_cast<size_t>(ir::IntAttribute(node, "choices")));
      double total = 0;
      if (ir::IntAttribute(node, "normalise") == 1)
        for (const int64_t e : order) total += std::exp(logits[static_cast<size_t>(e)]);
      else
        for (const double logit : logits) total += std::exp(logit);
      std::vector<double> row(static_cast<size_t>(hidden), 0.0);
      for (const int64_t e : order) {
        std::vector<double> middle = Product(x, in[2], e * inner, inner);
        const std::vector<double> up = Product(x, in[3], e * inner, inner);
        for (size_t i = 0; i < middle.size(); ++i) middle[i] = Silu(middle[i]) * up[i];
        const std::vector<double> out = Product(middle, in[4], e * hidden, hidden);
        const double share = std::exp(logits[static_cast<size_t>(e)]) / total;
        for (size_t i = 0; i < row.size(); ++i) row[i] += share * out[i];
      }
      y.push_back(row);
    }
    return y;
  }

  const ir::Graph& graph_;
  const Tensors& tensors_;
  const Work& work_;
  const compile::Options options_;
  std::map<ValueId, Matrix> values_;
};

// A compiled and packed model.
struct Model {
  Model(const ir::Graph& graph, const Tensors& tensors, const compile::Options& options,
        int threads = 1) {
    auto compiled = compile::Compile(graph, options);
    CHECK(compiled) << compiled.error().message;
    ThreadTeam team(threads);
    auto packed = compile::PackAll(compiled->program, compiled->packing, tensors, team, {});
    CHECK(packed) << packed.error().message;
    weights = std::move(*packed);
    program = std::make_shared<const isa::Program>(std::move(compiled->program));
  }
  std::shared_ptr<const isa::Program> program;
  isa::BoundWeights weights;
};

device::Launch LaunchOf(const isa::Program& program, const Work& work) {
  device::Launch launch(program);
  auto input = [&](const char* name) -> std::vector<int32_t>& {
    return launch.inputs[static_cast<size_t>(program.FindBuffer(name))];
  };
  auto set = [&](const char* name, size_t value) {
    launch.registers[static_cast<size_t>(program.FindRegister(name))] = static_cast<int64_t>(value);
  };
  input("tokens") = work.tokens;
  input("positions") = work.positions;
  input("sequences") = work.sequences;
  input("pages") = work.pages;
  input("picked_rows") = work.picked;
  input("sampling").assign(work.picked.size() * isa::kSampleParamWords, 0);
  set("rows", work.tokens.size());
  set("seqs", static_cast<size_t>(work.seqs));
  set("picked", work.picked.size());
  set("page_entries", work.pages.size());
  return launch;
}

// The logits of launches one after the other.
std::vector<float> Logits(const Model& model, const std::vector<Work>& launches,
                          const device::cpu::CpuOptions& options) {
  const auto device = device::cpu::MakeCpuDevice(options);
  auto loaded = device->Load(model.program, model.weights, {.kv_pages = 8});
  CHECK(loaded) << loaded.error().message;
  std::vector<float> logits;
  for (const Work& work : launches) {
    const auto ticket = (*loaded)->Submit(LaunchOf(*model.program, work));
    CHECK(ticket) << ticket.error().message;
    CHECK((*loaded)->Complete(*ticket));
    const auto bytes = (*loaded)->Output(model.program->FindBuffer("logits"));
    const size_t begin = logits.size();
    logits.resize(begin + bytes.size() / sizeof(float));
    std::memcpy(logits.data() + begin, bytes.data(), bytes.size());
  }
  return logits;
}
std::vector<float> Logits(const Model& model, const Work& work,
                          const device::cpu::CpuOptions& options) {
  return Logits(model, std::vector{work}, options);
}

// How far off the logits are: the least cosine of a row, and the largest error, of the root mean
// square of what it should be.
struct Distance {
  double cosine = 1;
  double error = 0;
};

Distance Compare(const std::vector<float>& logits, const Matrix& expected) {
  Distance distance;
  size_t at = 0;
  for (const auto& row : expected) {
    double xy = 0, xx = 0, yy = 0, largest = 0;
    for (const double y : row) {
      const auto x = static_cast<double>(logits.at(at++));
      xy += x * y;
      xx += x * x;
      yy += y * y;
      largest = std::max(largest, std::abs(x - y));
    }
    distance.cosine = std::min(distance.cosine, xy / std::sqrt(xx * yy));
    distance.error =
        std::max(distance.error, largest / std::sqrt(yy / static_cast<double>(row.size())));
  }
  EXPECT_EQ(at, logits.size());
  return distance;
}

// A small model in which everything that can be odd is; block types of 256 need their multiples.
Sizes SizesFor(DType type) {
  Sizes sizes{.bias = true, .dtype = type};
  sizes.head_dim = 8;
  sizes.heads = 4;
  sizes.kv_heads = 2;
  if (IsBlockType(type)) {
    sizes.hidden = BlockSize(type);
    sizes.inner = 2 * BlockSize(type);
    sizes.expert_inner = BlockSize(type);
    sizes.heads = static_cast<int64_t>(BlockSize(type)) / 8;
  }
  sizes.picked = 32;
  return sizes;
}

struct Case {
  std::string name;
  Sizes sizes;
  compile::Options options;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  using enum DType;
  const auto options = [](std::optional<DType> weights, DType kv = DType::kF32) {
    return compile::Options{.weight_type = weights, .kv_type = kv};
  };
  auto add = [&](std::string name, Sizes sizes, compile::Options what) {
    cases.push_back({std::move(name), std::move(sizes), what});
  };
  auto experts = [](Sizes sizes, Sizes::Storage storage, int64_t choices, bool normalise) {
    sizes.experts = 5;
    sizes.choices = choices;
    sizes.storage = storage;
    sizes.normalise = normalise;
    return sizes;
  };
  using enum Sizes::Storage;
  for (const DType type : {kF32, kBf16, kF16, kQ8_0, kQ4_0, kQ4_K, kQ6_K}) {
    const Sizes sizes = SizesFor(type);
    add(std::string("dense_") + Name(type), sizes, options({}));
    add(std::string("experts_") + Name(type), experts(sizes, kFused, 2, true), options({}));
  }
  for (const DType type : {kF32, kBf16, kQ8_0, kQ4_0}) {
    add(std::string("dense_f32_as_") + Name(type), SizesFor(kF32), options(type));
    add(std::string("experts_bf16_singly_as_") + Name(type),
        experts(SizesFor(kBf16), kSingly, 3, false), options(type));
    add(std::string("experts_q4_k_gate_up_as_") + Name(type),
        experts(SizesFor(kQ4_K), kGateUp, 1, true), options(type));
  }
  // Files that mix types: as llama.cpp's Q4_K_M does, and gate and up of unlike types.
  Sizes mixed = SizesFor(kQ4_K);
  mixed.type_of = [](const std::string& name) -> std::optional<DType> {
    if (name.contains(".v.") || name.contains("down")) return kQ6_K;
    if (name.contains("gate.") || name.contains("embed")) return kQ8_0;
    if (name.contains("router")) return kF32;
    return std::nullopt;
  };
  add("dense_mixed", mixed, options({}));
  mixed.first_expert_layer = 1;
  mixed.tied = true;
  add("experts_mixed_tied", experts(mixed, kFused, 2, false), options({}));
  mixed.type_of = [](const std::string& name) -> std::optional<DType> {
    if (name.contains("experts.up")) return kQ6_K;
    return std::nullopt;
  };
  add("experts_gate_unlike_up", experts(mixed, kFused, 4, true), options({}));
  add("dense_kv_i8", SizesFor(kF32), options({}, kI8));
  add("dense_kv_f8", SizesFor(kF32), options({}, kF8E4M3));
  add("dense_f32_as_f8", SizesFor(kF32), options(kF8E4M3));
  add("experts_bf16_singly_as_f8", experts(SizesFor(kBf16), kSingly, 3, false), options(kF8E4M3));
  for (const DType type : {kQ4_0, kF8E4M3}) {
    compile::Options weight_only = options(type);
    weight_only.weight_only = true;
    add(std::string("experts_weight_only_") + Name(type), experts(SizesFor(kBf16), kFused, 2, true),
        weight_only);
  }
  compile::Options weight_only = options({});
  weight_only.weight_only = true;
  add("experts_mixed_weight_only", experts(mixed, kFused, 4, true), weight_only);
  for (const int64_t window : {1, 7, 19}) {
    Sizes windowed = SizesFor(kF32);
    windowed.window = window;
    add("dense_window_" + std::to_string(window), windowed, options({}, window == 7 ? kI8 : kF32));
  }
  add("dense_kv_bf16", SizesFor(kQ8_0), options({}, kBf16));
  return cases;
}

class CompiledTest : public testing::TestWithParam<Case> {};

TEST_P(CompiledTest, ComputesTheGraph) {
  const Case& test = GetParam();
  const ir::Graph graph = Builder(test.sizes).Model();
  Tensors tensors;
  tensors.AddAllOf(graph);
  const Work work({5, 1, 20}, test.sizes.vocab, 7);
  const Matrix expected = Interpreter(graph, tensors, work, test.options).Run("logits");
  const Model model(graph, tensors, test.options);
  const std::vector<float> logits = Logits(model, work, {.threads = 1});
  const Distance distance = Compare(logits, expected);
  bool quantised = false, f8 = false;
  for (const isa::Buffer& buffer : model.program->buffers) {
    const bool rounds = buffer.form == isa::Form::kQuantised || buffer.form == isa::Form::kPages;
    quantised |= buffer.form == isa::Form::kQuantised;
    f8 |= rounds && buffer.dtype == DType::kF8E4M3;
  }
  EXPECT_FALSE(quantised && test.options.weight_only);
  const bool exact = !quantised && test.options.kv_type == DType::kF32;
  // f8_e4m3 rounds each value by up to one part in 16.
  EXPECT_GT(distance.cosine, exact ? 1 - 1e-7 : f8 ? 0.99 : 0.9995);
  // Sums of values that are widened are as long as those in f32, of values that blocks make large.
  const double rounding = test.options.weight_only ? 1e-3 : 1e-4;
  EXPECT_LT(distance.error, exact ? rounding : f8 ? 0.4 : 0.08);

  // The same bits by any kernels, threads and order, packed by any number of threads.
  const Model packed_by_three(graph, tensors, test.options, 3);
  for (const kernels::KernelSet* set : kernels::AvailableKernels())
    EXPECT_EQ(Logits(model, work, {.threads = 1, .kernels = set}), logits) << set->name;
  for (const int threads : {2, 3})
    EXPECT_EQ(
        Logits(
            packed_by_three, work,
            {.threads = threads, .order_seed = static_cast<uint64_t>(threads), .serial_cost = 0}),
        logits)
        << threads << " threads";
}

// A row's bits do not depend on what shares the launch with it, nor on which positions came before
// in the same launch.
TEST_P(CompiledTest, GivesTheSameBitsInAnyBatch) {
  const Case& test = GetParam();
  const ir::Graph graph = Builder(test.sizes).Model();
  Tensors tensors;
  tensors.AddAllOf(graph);
  const Model model(graph, tensors, test.options);
  const Work together({5, 1, 20}, test.sizes.vocab, 7);
  const std::vector<float> logits = Logits(model, together, {.threads = 2, .serial_cost = 0});
  size_t at = 0;
  for (size_t sequence = 0; sequence < 3; ++sequence) {
    const int32_t begin = together.sequences[sequence * 4];
    const int32_t length = together.sequences[sequence * 4 + 1];
    Work alone({length}, test.sizes.vocab, 1);
    std::copy_n(together.tokens.begin() + begin, length, alone.tokens.begin());
    const std::vector<float> these = Logits(model, alone, {.threads = 1});
    for (const float value : these) ASSERT_EQ(value, logits.at(at++)) << "sequence " << sequence;
    if (length < 3) continue;
    EXPECT_EQ(Logits(model,
                     {alone.Piece(0, length - 2), alone.Piece(length - 2, length - 1),
                      alone.Piece(length - 1, length)},
                     {.threads = 2, .serial_cost = 0}),
              these)
        << "sequence " << sequence;
  }
}

INSTANTIATE_TEST_SUITE_P(All, CompiledTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace millpower
