#include "import/qwen3/graph.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "base/check.h"

namespace millpower::import {
namespace {

using ir::Constant;
using ir::Op;
using ir::Symbol;
using ir::ValueId;

constexpr int64_t kMaxOption = 1 << 20;
constexpr size_t kProblemsNamed = 4;

Result<void> CheckOptions(const GraphOptions& options) {
  for (const int64_t option :
       {options.max_rows, options.max_seqs, options.max_picked, options.max_adjusts,
        options.max_pages, options.page_positions, options.sample_param_words,
        options.sample_adjustment_words, options.sample_record_words})
    if (option < 1 || option > kMaxOption)
      return Fail(ErrorCode::kInvalidArgument, "a graph option is " + std::to_string(option) +
                                                   ", not in 1 to " + std::to_string(kMaxOption));
  return {};
}

// That every rank gets as much of everything.
Result<void> CheckRanks(const Qwen3Config& config, const GraphOptions& options) {
  constexpr int64_t kMaxRanks = 1024;
  const int64_t ranks = options.ranks;
  if (options.stages < 1 || options.stage < 0 || options.stage >= options.stages)
    return Fail(ErrorCode::kInvalidArgument, "stage " + std::to_string(options.stage) + " of " +
                                                 std::to_string(options.stages) + " is none");
  if (options.stages > config.layers)
    return Fail(ErrorCode::kUnsupported, std::to_string(options.stages) +
                                             " stages are more than num_hidden_layers (" +
                                             std::to_string(config.layers) + ")");
  if (ranks < 1 || ranks > kMaxRanks || options.rank < 0 || options.rank >= ranks)
    return Fail(ErrorCode::kInvalidArgument, "rank " + std::to_string(options.rank) + " of " +
                                                 std::to_string(ranks) + " is not in 1 to 1024");
  const auto undivided = [&](const char* what, int64_t size) {
    return Fail(ErrorCode::kUnsupported, std::to_string(ranks) + " ranks do not divide " + what +
                                             " (" + std::to_string(size) + ")");
  };
  if (config.heads % ranks != 0) return undivided("num_attention_heads", config.heads);
  if (config.kv_heads % ranks != 0 && ranks % config.kv_heads != 0)
    return undivided("num_key_value_heads", config.kv_heads);
  const bool has_dense = config.experts == 0 || !config.dense_layers.empty();
  if (has_dense && config.intermediate_size % ranks != 0)
    return undivided("intermediate_size", config.intermediate_size);
  if (config.experts > 0 && config.expert_intermediate_size % ranks != 0)
    return undivided("moe_intermediate_size", config.expert_intermediate_size);
  return {};
}

int64_t Product(const std::vector<int64_t>& shape) {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

std::string ToString(const std::vector<int64_t>& shape) {
  ir::Shape dims;
  for (const int64_t size : shape) dims.push_back(Constant(size));
  return ir::ToString(dims);
}

class Qwen3Builder {
 public:
  Qwen3Builder(const Qwen3Config& config, const GraphOptions& options,
               const ir::WeightSource* weights)
      : config_(config), options_(options), weights_(weights) {}

  Result<ir::Graph> Build() {
    graph_.name = config_.experts > 0 ? "qwen3_moe" : "qwen3";
    graph_.ranks = options_.ranks;
    DeclareInputs();
    ValueId embedding = ir::kNoValue, h = hidden_;
    if (is_first()) {
      embedding = Embedding();
      h = Add(Op::kEmbedding, "embedding", {embedding, tokens_});
    }
    rope_ = RopeTable();
    const int64_t end = (options_.stage + 1) * config_.layers / options_.stages;
    for (int64_t layer = options_.stage * config_.layers / options_.stages; layer < end; ++layer)
      h = Layer(h, layer);
    if (is_last())
      Head(h, embedding);
    else
      graph_.AddOutput(h);
    if (problem_count_ > 0)
      return Fail(ErrorCode::kCorrupt, std::to_string(problem_count_) +
                                           " tensors are not as the config has them: " + problems_ +
                                           (problem_count_ > kProblemsNamed ? ", ..." : ""));
    AddFacts();
    TRY(ir::Verify(graph_));
    return std::move(graph_);
  }

 private:
  void DeclareInputs() {
    const int64_t pages_per_seq =
        (config_.max_positions + options_.page_positions - 1) / options_.page_positions;
    graph_.AddSymbol("rows", options_.max_rows);
    graph_.AddSymbol("seqs", options_.max_seqs);
    graph_.AddSymbol("picked", options_.max_picked);
    graph_.AddSymbol("adjusts", options_.max_adjusts);
    graph_.AddSymbol("page_entries", options_.max_seqs * pages_per_seq);
    graph_.AddSymbol("pages", options_.max_pages);
    const auto input = [this](const char* name, ir::Shape shape,
                              std::optional<ir::Dim> bound = std::nullopt) {
      return graph_.AddInput(name, DType::kI32, std::move(shape), std::move(bound));
    };
    if (is_first())
      tokens_ = input("tokens", {Symbol("rows")}, Constant(config_.vocab_size));
    else
      hidden_ = graph_.AddInput("hidden", DType::kF32,
                                {Symbol("rows"), Constant(config_.hidden_size)}, std::nullopt);
    positions_ = input("positions", {Symbol("rows")});
    sequences_ = input("sequences", {Symbol("seqs"), Constant(4)});
    pages_ = input("pages", {Symbol("page_entries")}, Symbol("pages"));
    if (!is_last()) return;
    picked_rows_ = input("picked_rows", {Symbol("picked")}, Symbol("rows"));
    sampling_ = input("sampling", {Symbol("picked"), Constant(options_.sample_param_words)});
    adjust_tokens_ = input("adjust_tokens", {Symbol("adjusts")}, Constant(config_.vocab_size));
    adjustments_ =
        input("adjustments", {Symbol("adjusts"), Constant(options_.sample_adjustment_words)});
  }

  void AddFacts() {
    graph_.facts = {{"vocab_size", config_.vocab_size}, {"max_positions", config_.max_positions},
                    {"hidden", config_.hidden_size},    {"layers", config_.layers},
                    {"heads", config_.heads},           {"kv_heads", config_.kv_heads},
                    {"head_dim", config_.head_dim},     {"parameters", parameters_}};
    if (config_.experts == 0) return;
    graph_.facts["experts"] = config_.experts;
    graph_.facts["experts_per_token"] = config_.experts_per_token;
  }

  ValueId RopeTable() {
    const std::vector<float> inv_freq = InverseFrequencies(config_.rope, config_.head_dim);
    const double scale = config_.rope.yarn ? config_.rope.yarn->attention_factor : 1.0;
    const ValueId frequencies =
        graph_.AddWeight("rope.inv_freq", DType::kF32, {Constant(config_.head_dim / 2)}, inv_freq);
    return Add(Op::kRopeTable, "rope.table", {positions_, frequencies}, {{"scale", scale}});
  }

  bool is_first() const { return options_.stage == 0; }
  bool is_last() const { return options_.stage == options_.stages - 1; }

  ValueId Embedding() {
    return Weight("model.embed_tokens.weight", {config_.vocab_size, config_.hidden_size});
  }

  // Only rows whose next token is wanted go on.
  void Head(ValueId h, ValueId embedding) {
    const ValueId last = Add(Op::kSelectRows, "last", {h, picked_rows_});
    const ValueId normed = RmsNorm("last.norm", last, "model.norm.weight", config_.hidden_size);
    const ValueId logits = Logits(normed, embedding);
    graph_.AddOutput(logits);
    graph_.AddOutput(Add(Op::kSample, "sampled", {logits, sampling_, adjust_tokens_, adjustments_},
                         {{"record_words", options_.sample_record_words}}));
  }

  // h + attention(norm(h)), then that + mlp(norm(that)).
  ValueId Layer(ValueId h, int64_t layer) {
    const std::string node = "layers." + std::to_string(layer) + ".";
    const std::string weight = "model." + node;
    const ValueId attn_in =
        RmsNorm(node + "attn_norm", h, weight + "input_layernorm.weight", config_.hidden_size);
    const ValueId mid = Add(Op::kAdd, node + "attn_add", {h, Attention(attn_in, layer)});
    const ValueId mlp_in = RmsNorm(node + "mlp_norm", mid,
                                   weight + "post_attention_layernorm.weight", config_.hidden_size);
    const bool dense =
        config_.experts == 0 || std::ranges::binary_search(config_.dense_layers, layer);
    const ValueId mlp =
        dense ? Mlp(mlp_in, node, weight + "mlp.") : Experts(mlp_in, node, weight + "mlp.");
    return Add(Op::kAdd, node + "mlp_add", {mid, mlp});
  }

  ValueId Attention(ValueId x, int64_t layer) {
    const std::string node = "layers." + std::to_string(layer) + ".";
    const std::string weight = "model." + node + "self_attn.";
    const int64_t hidden = config_.hidden_size;
    const int64_t q_dim = config_.heads * config_.head_dim;
    const int64_t kv_dim = config_.kv_heads * config_.head_dim;
    // What this rank has of them; of KV heads that are fewer than ranks, one.
    const int64_t heads = Part(config_.heads);
    const int64_t kv_heads = std::max<int64_t>(1, Part(config_.kv_heads));
    const int64_t first_kv_head = options_.rank * config_.kv_heads / options_.ranks;
    const bool whole = options_.ranks == 1;
    // Of the n channels of the model, those of this rank.
    const auto linear = [&](const std::string& name, const std::string& projection, int64_t n,
                            int64_t channels, int64_t first) {
      const std::string matrix = weight + projection + ".weight";
      const std::string vector = weight + projection + ".bias";
      const ValueId w = whole
                            ? Weight(matrix, {n, hidden})
                            : Rows(matrix, TypeOf(matrix, {n, hidden}), hidden, n, channels, first);
      ValueId bias = ir::kNoValue;
      if (config_.attention_bias && whole) bias = Weight(vector, {n});
      if (config_.attention_bias && !whole) {
        bias = AddWeight(vector, TypeOf(vector, {n}), {channels}, n);
        graph_.SetSlices(bias, {{vector, 0, 1, first, channels}});
      }
      return Add(Op::kLinear, node + name, {x, w, bias});
    };
    // Each head is normalised by itself, then rotated.
    const auto rotated = [&](const std::string& name, ValueId input, int64_t heads) {
      const ValueId normed =
          RmsNorm(node + name + "_norm", input, weight + name + "_norm.weight", config_.head_dim);
      return Add(Op::kRope, node + name + "_rope", {normed, rope_}, {{"heads", heads}});
    };
    const int64_t dim = config_.head_dim;
    const ValueId q = linear("q", "q_proj", q_dim, heads * dim, options_.rank * heads * dim);
    const ValueId k = linear("k", "k_proj", kv_dim, kv_heads * dim, first_kv_head * dim);
    const ValueId v = linear("v", "v_proj", kv_dim, kv_heads * dim, first_kv_head * dim);
    const ValueId q_rotated = rotated("q", q, heads);
    const ValueId k_rotated = rotated("k", k, kv_heads);
    const ValueId mixed =
        Add(Op::kAttention, node + "attn", {q_rotated, k_rotated, v, sequences_, pages_},
            {{"layer", layer},
             {"heads", heads},
             {"kv_heads", kv_heads},
             {"head_dim", config_.head_dim},
             {"scale", 1.0 / std::sqrt(static_cast<double>(config_.head_dim))},
             {"window", int64_t{0}}});
    const ValueId o = PartOf(weight + "o_proj.weight", hidden, q_dim, Cut::kSteps);
    return AllReduce(node + "o_sum", Add(Op::kLinear, node + "o", {mixed, o, OutputBias(weight)}));
  }

  // Of several ranks the first adds it.
  ValueId OutputBias(const std::string& weight) {
    if (!config_.attention_bias) return ir::kNoValue;
    const std::string name = weight + "o_proj.bias";
    const std::vector<int64_t> shape = {config_.hidden_size};
    if (options_.rank == 0) return Weight(name, shape);
    (void)TypeOf(name, shape);
    parameters_ += config_.hidden_size;
    return graph_.AddWeight(name, DType::kF32, {Constant(config_.hidden_size)},
                            std::vector<float>(static_cast<size_t>(config_.hidden_size), 0.0f));
  }

  // Which part of a matrix [n, k] a rank has.
  enum class Cut {
    kWhole,
    kChannels,  // of the n
    kSteps,     // of the k
  };

  // A rank's part of something of `size`.
  int64_t Part(int64_t size) const { return size / options_.ranks; }

  // The sum over the ranks, or all ranks' columns; of one rank x itself.
  ValueId Exchange(const std::string& name, ValueId x, int64_t kind) {
    if (options_.ranks == 1) return x;
    return Add(Op::kCollective, name, {x}, {{"kind", kind}});
  }
  ValueId AllReduce(const std::string& name, ValueId x) { return Exchange(name, x, 0); }

  // Each rank's part of the vocabulary, put together.
  ValueId Logits(ValueId x, ValueId embedding) {
    const std::vector<int64_t> shape = {config_.vocab_size, config_.hidden_size};
    const bool tied = config_.tie_word_embeddings;
    if (options_.ranks == 1 || config_.vocab_size % options_.ranks != 0)
      return Add(Op::kLinear, "logits",
                 {x, !tied        ? Weight("lm_head.weight", shape)
                     : is_first() ? embedding
                                  : Embedding()});
    const int64_t rows = Part(config_.vocab_size);
    const std::string tensor = tied ? "model.embed_tokens.weight" : "lm_head.weight";
    if (!tied) parameters_ += Product(shape);
    const ValueId head =
        AddWeight("lm_head.weight", TypeOf(tensor, shape), {rows, config_.hidden_size}, 0);
    graph_.SetSlices(head, {{tensor, options_.rank * rows, rows}});
    return Exchange("logits", Add(Op::kLinear, "logits.part", {x, head}), 1);
  }

  // Part of a matrix [n, k] of the model.
  ValueId PartOf(const std::string& name, int64_t n, int64_t k, Cut cut) {
    if (options_.ranks == 1 || cut == Cut::kWhole) return Weight(name, {n, k});
    const DType type = TypeOf(name, {n, k});
    if (cut == Cut::kChannels) return Rows(name, type, k, n, Part(n), options_.rank * Part(n));
    const ValueId weight = AddWeight(name, type, {n, Part(k)}, n * k);
    graph_.SetSlices(weight, {{name, 0, n, options_.rank * Part(k), Part(k)}});
    return weight;
  }

  // Rows [first, first + rows) of a matrix [n, k].
  ValueId Rows(const std::string& name, DType type, int64_t k, int64_t n, int64_t rows,
               int64_t first) {
    const ValueId weight = AddWeight(name, type, {rows, k}, n * k);
    graph_.SetSlices(weight, {{name, first, rows}});
    return weight;
  }

  // down(silu(gate(x)) * up(x))
  ValueId Mlp(ValueId x, const std::string& node, const std::string& weight) {
    const int64_t hidden = config_.hidden_size;
    const int64_t inner = config_.intermediate_size;
    const ValueId gate =
        Add(Op::kLinear, node + "gate",
            {x, PartOf(weight + "gate_proj.weight", inner, hidden, Cut::kChannels)});
    const ValueId up = Add(Op::kLinear, node + "up",
                           {x, PartOf(weight + "up_proj.weight", inner, hidden, Cut::kChannels)});
    const ValueId activated = Add(Op::kSilu, node + "silu", {gate});
    const ValueId product = Add(Op::kMul, node + "gated", {activated, up});
    const ValueId down = PartOf(weight + "down_proj.weight", hidden, inner, Cut::kSteps);
    return AllReduce(node + "down_sum", Add(Op::kLinear, node + "down", {product, down}));
  }

  ValueId Experts(ValueId x, const std::string& node, const std::string& weight) {
    const int64_t experts = config_.experts;
    const int64_t hidden = config_.hidden_size;
    const int64_t inner = config_.expert_intermediate_size;
    const ValueId router = Weight(weight + "gate.weight", {experts, hidden});
    const std::string all = weight + "experts.";
    const std::string gate_up = all + "gate_up_proj";
    const ValueId gate =
        ExpertWeight(all, "gate_proj", {gate_up, 2, 0}, inner, hidden, Cut::kChannels);
    const ValueId up = ExpertWeight(all, "up_proj", {gate_up, 2, 1}, inner, hidden, Cut::kChannels);
    const ValueId down =
        ExpertWeight(all, "down_proj", {all + "down_proj", 1, 0}, hidden, inner, Cut::kSteps);
    return AllReduce(node + "experts_sum",
                     Add(Op::kExperts, node + "experts", {x, router, gate, up, down},
                         {{"choices", config_.experts_per_token},
                          {"normalise", int64_t{config_.normalise_experts}}}));
  }

  // Where a fused tensor [experts, parts * n, k] has one projection of all experts.
  struct FusedPart {
    std::string tensor;
    int64_t parts = 1;
    int64_t part = 0;
  };

  // One projection of all experts, [experts, n, k], of each of which the rank has a part; from the
  // form that the files have it in: one tensor of that shape (GGUF), a fused one (transformers 5),
  // or one for each expert.
  ValueId ExpertWeight(const std::string& all, const std::string& projection,
                       const FusedPart& fused, int64_t n, int64_t k, Cut cut) {
    const std::string name = all + projection + ".weight";
    const std::vector<int64_t> shape = {config_.experts, n, k};
    const bool is_one = weights_ == nullptr || IsThere(name);
    if (is_one && options_.ranks == 1) return Weight(name, shape);
    const int64_t rows = cut == Cut::kChannels ? Part(n) : n;
    const int64_t cols = cut == Cut::kSteps ? Part(k) : k;
    // Rows of an expert whose own begin at `begin`.
    const auto slice = [&](const std::string& tensor, int64_t begin) {
      ir::TensorSlice part{tensor, begin + (rows < n ? options_.rank * rows : 0), rows};
      if (cols < k) part.first_col = options_.rank * cols, part.cols = cols;
      return part;
    };
    std::vector<ir::TensorSlice> slices;
    std::optional<DType> dtype;
    if (is_one) {
      dtype = TypeOf(name, shape);
      for (int64_t expert = 0; expert < config_.experts; ++expert)
        slices.push_back(slice(name, expert * n));
    } else if (IsThere(fused.tensor)) {
      dtype = TypeOf(fused.tensor, {config_.experts, fused.parts * n, k});
      for (int64_t expert = 0; expert < config_.experts; ++expert)
        slices.push_back(slice(fused.tensor, (expert * fused.parts + fused.part) * n));
    } else {
      for (int64_t expert = 0; expert < config_.experts; ++expert) {
        slices.push_back(slice(all + std::to_string(expert) + "." + projection + ".weight", 0));
        const DType type = TypeOf(slices.back().tensor, {n, k});
        if (type != dtype.value_or(type))
          NoteProblem("'" + slices.back().tensor + "' is " + Name(type) +
                      ", and those of other experts are " + Name(*dtype));
        dtype = type;
      }
    }
    const ValueId weight = AddWeight(name, *dtype, {config_.experts, rows, cols}, Product(shape));
    graph_.SetSlices(weight, std::move(slices));
    return weight;
  }

  ValueId RmsNorm(const std::string& name, ValueId x, const std::string& weight, int64_t group) {
    return Add(Op::kRmsNorm, name, {x, Weight(weight, {group})},
               {{"group", group}, {"epsilon", config_.rms_norm_epsilon}});
  }

  // A validated config gives nodes that fit.
  ValueId Add(Op op, const std::string& name, std::vector<ValueId> inputs,
              ir::Attributes attributes = {}) {
    const auto added = graph_.AddNode(op, name, std::move(inputs), std::move(attributes));
    CHECK(added) << added.error().message;
    return *added;
  }

  ValueId Weight(const std::string& name, const std::vector<int64_t>& shape) {
    return AddWeight(name, TypeOf(name, shape), shape, Product(shape));
  }

  // Of any type, even one that we do not read.
  bool IsThere(const std::string& tensor) const {
    const auto found = weights_->Find(tensor);
    return found || found.error().code != ErrorCode::kNotFound;
  }

  // The type that a tensor has in its file. Notes what is wrong with it.
  DType TypeOf(const std::string& tensor, const std::vector<int64_t>& shape) {
    if (weights_ == nullptr) return config_.dtype;
    const auto found = weights_->Find(tensor);
    if (found && found->shape == shape) return found->dtype;
    NoteProblem(found ? "'" + tensor + "' is " + ToString(found->shape) + ", not " + ToString(shape)
                      : found.error().message);
    return config_.dtype;
  }

  // `parameters`: of the model, of which this is a rank's part.
  ValueId AddWeight(const std::string& name, DType dtype, const std::vector<int64_t>& shape,
                    int64_t parameters) {
    ir::Shape dims;
    for (const int64_t size : shape) dims.push_back(Constant(size));
    parameters_ += parameters;
    return graph_.AddWeight(name, dtype, std::move(dims));
  }

  void NoteProblem(const std::string& problem) {
    if (++problem_count_ <= kProblemsNamed) problems_ += (problems_.empty() ? "" : ", ") + problem;
  }

  const Qwen3Config& config_;
  const GraphOptions& options_;
  const ir::WeightSource* weights_;
  ir::Graph graph_;
  ValueId tokens_ = ir::kNoValue, hidden_ = ir::kNoValue, positions_ = ir::kNoValue,
          sequences_ = ir::kNoValue;
  ValueId pages_ = ir::kNoValue, picked_rows_ = ir::kNoValue, sampling_ = ir::kNoValue;
  ValueId adjust_tokens_ = ir::kNoValue, adjustments_ = ir::kNoValue;
  ValueId rope_ = ir::kNoValue;
  int64_t parameters_ = 0;
  size_t problem_count_ = 0;
  std::string problems_;
};

}  // namespace

Result<ir::Graph> BuildQwen3Graph(const Qwen3Config& config, const GraphOptions& options,
                                  const ir::WeightSource* weights) {
  TRY(Validate(config));
  TRY(CheckOptions(options));
  TRY(CheckRanks(config, options));
  return Qwen3Builder(config, options, weights).Build();
}

}  // namespace millpower::import
