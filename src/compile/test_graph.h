// Graphs as importers build them, and tensors of random values for them: for the tests of this
// folder and of what runs what it compiles.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/blocks.h"
#include "base/check.h"
#include "base/rng.h"
#include "ir/graph.h"
#include "ir/weights.h"
#include "isa/sampling.h"

namespace millpower::compile {

using ir::Constant;
using ir::Op;
using ir::Symbol;
using ir::ValueId;

// The sizes of a small Qwen3; odd ones, so that nothing fits its blocks by chance.
struct Sizes {
  int64_t layers = 2;
  int64_t vocab = 37;
  int64_t hidden = 21;
  int64_t inner = 27;
  int64_t heads = 3;
  int64_t kv_heads = 1;
  int64_t head_dim = 6;
  bool tied = false;
  bool bias = false;
  DType dtype = DType::kF32;
  // Of single weights by name, where they are not `dtype`.
  std::function<std::optional<DType>(const std::string&)> type_of = {};
  int64_t picked = 4;
  int64_t window = 0;
  // Not 0: layers from `first_expert_layer` on have experts.
  int64_t experts = 0;
  int64_t choices = 2;
  int64_t expert_inner = 13;
  int64_t first_expert_layer = 0;
  bool normalise = true;
  // How files hold experts: as one tensor of each kind, singly, or gate and up of all in one.
  enum class Storage { kFused, kSingly, kGateUp } storage = Storage::kFused;
};

// The graph as the importer builds it.
class Builder {
 public:
  explicit Builder(const Sizes& sizes) : sizes_(sizes) {
    graph_.name = "small";
    graph_.facts = {{"vocab_size", sizes.vocab}};
    for (const auto& [name, max] :
         std::vector<std::pair<const char*, int64_t>>{{"rows", 32},
                                                      {"seqs", 4},
                                                      {"picked", sizes.picked},
                                                      {"adjusts", 9},
                                                      {"page_entries", 8},
                                                      {"pages", 32}})
      graph_.AddSymbol(name, max);
    const auto input = [this](const char* name, ir::Shape shape,
                              std::optional<ir::Dim> bound = std::nullopt) {
      return graph_.AddInput(name, DType::kI32, std::move(shape), std::move(bound));
    };
    tokens = input("tokens", {Symbol("rows")}, Constant(sizes.vocab));
    positions = input("positions", {Symbol("rows")});
    sequences = input("sequences", {Symbol("seqs"), Constant(4)});
    pages = input("pages", {Symbol("page_entries")}, Symbol("pages"));
    picked_rows = input("picked_rows", {Symbol("picked")}, Symbol("rows"));
    sampling = input("sampling", {Symbol("picked"), Constant(isa::kSampleParamWords)});
    adjust_tokens = input("adjust_tokens", {Symbol("adjusts")}, Constant(sizes.vocab));
    adjustments = input("adjustments", {Symbol("adjusts"), Constant(isa::kSampleAdjustmentWords)});
  }

  ValueId Weight(const std::string& name, std::vector<int64_t> shape) {
    ir::Shape dims;
    for (const int64_t size : shape) dims.push_back(Constant(size));
    DType type = sizes_.dtype;
    if (sizes_.type_of) type = sizes_.type_of(name).value_or(type);
    if (IsBlockType(type) && shape.size() == 1) type = DType::kF32;  // as files have it
    return graph_.AddWeight(name, type, dims);
  }
  ValueId Add(Op op, const std::string& name, std::vector<ValueId> inputs,
              ir::Attributes attributes = {}) {
    const auto added = graph_.AddNode(op, name, std::move(inputs), std::move(attributes));
    CHECK(added) << added.error().message;
    return *added;
  }
  ValueId Norm(const std::string& name, ValueId x, int64_t group) {
    return Add(Op::kRmsNorm, name, {x, Weight(name + ".weight", {group})},
               {{"group", group}, {"epsilon", 1e-6}});
  }
  ValueId Linear(const std::string& name, ValueId x, int64_t n, int64_t k, bool bias = false) {
    const ValueId weight = Weight(name + ".weight", {n, k});
    return Add(Op::kLinear, name, {x, weight, bias ? Weight(name + ".bias", {n}) : ir::kNoValue});
  }

  ValueId Layer(ValueId h, ValueId table, int64_t layer) {
    const std::string at = std::to_string(layer) + ".";
    const int64_t hidden = sizes_.hidden, dim = sizes_.head_dim;
    const ValueId x = Norm(at + "attn_norm", h, hidden);
    const ValueId q = Linear(at + "q", x, sizes_.heads * dim, hidden, sizes_.bias);
    const ValueId k = Linear(at + "k", x, sizes_.kv_heads * dim, hidden, sizes_.bias);
    const ValueId v = Linear(at + "v", x, sizes_.kv_heads * dim, hidden, sizes_.bias);
    const ValueId q_rotated = Add(Op::kRope, at + "q_rope", {Norm(at + "q_norm", q, dim), table},
                                  {{"heads", sizes_.heads}});
    const ValueId k_rotated = Add(Op::kRope, at + "k_rope", {Norm(at + "k_norm", k, dim), table},
                                  {{"heads", sizes_.kv_heads}});
    const ValueId mixed =
        Add(Op::kAttention, at + "attn", {q_rotated, k_rotated, v, sequences, pages},
            {{"layer", layer},
             {"heads", sizes_.heads},
             {"kv_heads", sizes_.kv_heads},
             {"head_dim", dim},
             {"scale", 0.4},
             {"window", sizes_.window}});
    const ValueId mid = Add(Op::kAdd, at + "attn_add",
                            {h, Linear(at + "o", mixed, hidden, sizes_.heads * dim, sizes_.bias)});
    const ValueId y = Norm(at + "mlp_norm", mid, hidden);
    if (sizes_.experts > 0 && layer >= sizes_.first_expert_layer)
      return Add(Op::kAdd, at + "mlp_add", {mid, Experts(at, y)});
    const ValueId gate = Linear(at + "gate", y, sizes_.inner, hidden);
    const ValueId up = Linear(at + "up", y, sizes_.inner, hidden);
    const ValueId product = Add(Op::kMul, at + "gated", {Add(Op::kSilu, at + "silu", {gate}), up});
    return Add(Op::kAdd, at + "mlp_add", {mid, Linear(at + "down", product, hidden, sizes_.inner)});
  }

  ValueId Experts(const std::string& at, ValueId x) {
    const int64_t count = sizes_.experts, inner = sizes_.expert_inner, hidden = sizes_.hidden;
    const ValueId router = Weight(at + "router.weight", {count, hidden});
    const ValueId gate = Weight(at + "experts.gate", {count, inner, hidden});
    const ValueId up = Weight(at + "experts.up", {count, inner, hidden});
    const ValueId down = Weight(at + "experts.down", {count, hidden, inner});
    for (const auto& [id, what, rows] :
         {std::tuple(gate, "gate", inner), {up, "up", inner}, {down, "down", hidden}}) {
      std::vector<ir::TensorSlice> slices;
      for (int64_t i = 0; i < count; ++i) {
        if (sizes_.storage == Sizes::Storage::kSingly)
          slices.push_back({at + "experts." + std::to_string(i) + "." + what, 0, rows});
        else if (sizes_.storage == Sizes::Storage::kGateUp && id != down)
          slices.push_back({at + "experts.gate_up", (2 * i + (id == up ? 1 : 0)) * inner, inner});
      }
      if (!slices.empty()) graph_.SetSlices(id, slices);
    }
    return Add(Op::kExperts, at + "experts", {x, router, gate, up, down},
               {{"choices", sizes_.choices}, {"normalise", int64_t{sizes_.normalise}}});
  }

  ir::Graph Model() {
    const ValueId embedding = Weight("embed", {sizes_.vocab, sizes_.hidden});
    ValueId h = Add(Op::kEmbedding, "embedded", {embedding, tokens});
    const ValueId frequencies = graph_.AddWeight(
        "inv_freq", DType::kF32, {Constant(sizes_.head_dim / 2)}, Frequencies(sizes_.head_dim / 2));
    const ValueId table = Add(Op::kRopeTable, "table", {positions, frequencies}, {{"scale", 1.0}});
    for (int64_t layer = 0; layer < sizes_.layers; ++layer) h = Layer(h, table, layer);
    const ValueId last =
        Norm("norm", Add(Op::kSelectRows, "last", {h, picked_rows}), sizes_.hidden);
    const ValueId head = sizes_.tied ? embedding : Weight("head", {sizes_.vocab, sizes_.hidden});
    const ValueId logits = Add(Op::kLinear, "logits", {last, head});
    graph_.AddOutput(logits);
    graph_.AddOutput(Add(Op::kSample, "sampled", {logits, sampling, adjust_tokens, adjustments},
                         {{"record_words", int64_t{isa::kSampleRecordWords}}}));
    return graph_;
  }

  static std::vector<float> Frequencies(int64_t count) {
    std::vector<float> frequencies = {1.0f, 0.1f, 0.01f};
    frequencies.resize(static_cast<size_t>(count), 0.001f);
    return frequencies;
  }

  ir::Graph& graph() { return graph_; }

  ValueId tokens, positions, sequences, pages, picked_rows, sampling, adjust_tokens, adjustments;

 private:
  const Sizes sizes_;
  ir::Graph graph_;
};

// Tensors of random values, as a file would hold them.
class Tensors final : public ir::WeightSource {
 public:
  void Add(const std::string& name, DType dtype, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    Tensor& tensor = tensors_[name];
    tensor.view.dtype = dtype;
    tensor.view.shape = std::move(shape);
    // Products of matrices keep the size of what they are multiplied with.
    const float scale = tensor.view.shape.size() > 1
                            ? 1 / std::sqrt(static_cast<float>(tensor.view.shape.back()))
                            : 1;
    const int64_t blocks = count / BlockSize(dtype), bytes = BlockBytes(dtype);
    tensor.bytes.resize(static_cast<size_t>(blocks * bytes) + 1);
    for (int64_t i = 0; i < blocks; ++i)
      MakeBlock(dtype, scale, tensor.bytes.data() + 1 + i * bytes);  // not aligned, as in files
    tensor.view.bytes = std::span(tensor.bytes).subspan(1);
  }
  void AddAllOf(const ir::Graph& graph) {
    for (const ir::Value& value : graph.values()) {
      if (value.kind != ir::ValueKind::kWeight || !value.values.empty() || !value.literal.empty())
        continue;
      std::vector<int64_t> shape;
      for (const ir::Dim& dim : value.shape) shape.push_back(dim.size);
      if (value.slices.empty()) Add(value.name, value.dtype, std::move(shape));
      for (const ir::TensorSlice& slice : value.slices) {
        int64_t rows = slice.first_row + slice.rows;
        if (const auto found = tensors_.find(slice.tensor); found != tensors_.end())
          rows = std::max(rows, found->second.view.shape[0]);
        Add(slice.tensor, value.dtype, {rows, shape.back()});
      }
    }
  }

  Result<ir::TensorView> Find(const std::string& name) const override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return Fail(ErrorCode::kNotFound, "no tensor '" + name + "'");
    return found->second.view;
  }
  void Release(std::span<const std::byte> bytes) const override {
    if (on_release) on_release(bytes);
  }
  std::function<void(std::span<const std::byte>)> on_release;

  // Values of a tensor, its dimensions but the last taken together as rows.
  std::vector<float> Row(const std::string& name, int64_t row) const {
    const ir::TensorView& view = tensors_.at(name).view;
    const int64_t cols = view.shape.size() > 1 ? view.shape.back() : 1;
    std::vector<float> values(static_cast<size_t>(cols));
    Dequantise(view.dtype,
               view.bytes.data() + row * (cols / BlockSize(view.dtype)) * BlockBytes(view.dtype),
               cols, values.data());
    return values;
  }
  float At(const std::string& name, int64_t row, int64_t col) const {
    return Row(name, row)[static_cast<size_t>(col)];
  }
  std::span<std::byte> Bytes(const std::string& name) {
    return std::span(tensors_.at(name).bytes).subspan(1);
  }

 private:
  // A value in (-2, 2) times `scale`, or a block of values of about that size with any integers and
  // scales.
  void MakeBlock(DType type, float scale, std::byte* to) {
    const float value = rng_.Uniform(-2, 2) * scale;
    const auto half = static_cast<uint16_t>(0x3000 + rng_.Below(0x1800));  // an f16 in 0.1..8
    const Bf16 brain = F32ToBf16(value);
    if (type == DType::kF32) std::memcpy(to, &value, 4);
    if (type == DType::kBf16) std::memcpy(to, &brain, 2);
    if (type == DType::kF16) std::memcpy(to, &half, 2);
    if (!IsBlockType(type)) return;
    for (int64_t i = 0; i < BlockBytes(type); ++i) to[i] = static_cast<std::byte>(rng_.Below(256));
    const float largest = type == DType::kQ8_0   ? 128
                          : type == DType::kQ4_0 ? 8
                          : type == DType::kQ4_K ? 63 * 15
                                                 : 128 * 32;
    const uint16_t d = F32ToF16(rng_.Uniform(1, 2) * scale / largest);
    const uint16_t dmin = F32ToF16(rng_.Uniform(0.5f, 1) * scale / 63);
    std::memcpy(to + (type == DType::kQ6_K ? 208 : 0), &d, 2);
    if (type == DType::kQ4_K) std::memcpy(to + 2, &dmin, 2);
  }

  struct Tensor {
    std::vector<std::byte> bytes;
    ir::TensorView view;
  };
  std::map<std::string, Tensor> tensors_;
  Rng rng_{11};
};

}  // namespace millpower::compile
