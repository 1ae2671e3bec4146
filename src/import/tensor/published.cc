#include "import/tensor/published.h"

#include <algorithm>
#include <string>

#include "base/check.h"
#include "import/tensor/builder.h"
#include "import/tensor/ports.h"

namespace millpower::import {
namespace {

// Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation
// Systems", 2019, as facebookresearch/dlrm, bench/dlrm_s_criteo_kaggle.sh, runs it:
// --arch-sparse-feature-size=16 --arch-mlp-bot="13-512-256-64-16" --arch-mlp-top="512-256-1". Rows
// are the distinct values of Criteo Kaggle's 26 categorical features, as its data loader counts
// them.
const PublishedRecommender kDlrmKaggle{
    .name = "dlrm-kaggle",
    .reference = "facebookresearch/dlrm, bench/dlrm_s_criteo_kaggle.sh",
    .columns = 16,
    .rows = {1460,  583,  10131227, 2202608, 305, 24,     12517,   633,   3,
             93145, 5683, 8351593,  3194,    27,  14992,  5461306, 10,    5652,
             2173,  4,    7046547,  18,      15,  286181, 105,     142572},
    .hots = {},
    .bottom = {13, 512, 256, 64, 16},
    .top = {512, 256, 1}};

// Wang et al., "DCN V2", 2020, as MLPerf's dlrm_dcnv2: mlcommons/training,
// recommendation_v2/torchrec_dlrm, README: --num_embeddings_per_feature, --multi_hot_sizes,
// --embedding_dim 128, --dense_arch_layer_sizes 512,256,128,
// --over_arch_layer_sizes 1024,1024,512,256,1, --dcn_num_layers=3, --dcn_low_rank_dim=512.
const PublishedRecommender kDcnV2MlPerf{
    .name = "dcnv2-mlperf",
    .reference = "mlcommons/training, recommendation_v2/torchrec_dlrm",
    .columns = 128,
    .rows = {40000000, 39060,    17295,    7424,     20265,  3,     7122, 1543, 63,
             40000000, 3067956,  405282,   10,       2209,   11938, 155,  4,    976,
             14,       40000000, 40000000, 40000000, 590152, 12973, 108,  36},
    .hots = {3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1},
    .bottom = {13, 512, 256, 128},
    .top = {1024, 1024, 512, 256, 1},
    .cross_layers = 3,
    .cross_rank = 512};

constexpr const char* kBatch = "batch";

class Recommender {
 public:
  Recommender(const PublishedRecommender& published, const TensorOptions& options)
      : published_(published), builder_(published.name) {
    builder_.AddSymbol(kBatch, options.max_batch);
  }

  Result<TensorBuilder::Built> Build() && {
    const ir::Dim batch = ir::Symbol(kBatch);
    const Tensor input =
        builder_.Input("dense", DType::kF32, {batch, ir::Constant(published_.bottom.front())});
    TRY_ASSIGN(const Tensor dense, Perceptron(input, "bottom", published_.bottom, true));
    std::vector<Tensor> features{dense};
    for (size_t i = 0; i < published_.rows.size(); ++i) {
      TRY_ASSIGN(features.emplace_back(), Feature(i));
    }
    Tensor x;
    if (published_.cross_layers > 0) {
      TRY_ASSIGN(x, Cross(features));
    } else {
      TRY_ASSIGN(x, Dots(features));
    }
    const std::optional<int64_t> width = builder_.dim(x, 1).Constant();
    CHECK(width) << published_.name;
    std::vector<int64_t> top{*width};
    top.insert(top.end(), published_.top.begin(), published_.top.end());
    TRY_ASSIGN(x, Perceptron(x, "top", top, false));
    TRY_ASSIGN(x, builder_.Unary(MapOp::kSigmoid, x));
    TRY(builder_.Output("prediction", x));
    return std::move(builder_).Build();
  }

 private:
  Result<Tensor> Linear(Tensor x, const std::string& name, int64_t n, int64_t k, bool has_bias) {
    const Tensor weight = builder_.Weight(name + ".weight", DType::kF32, {n, k});
    const Tensor bias = has_bias ? builder_.Weight(name + ".bias", DType::kF32, {n}) : Tensor();
    return builder_.Linear(x, weight, bias);
  }

  // Layers with relu between them, and behind the last if asked for.
  Result<Tensor> Perceptron(Tensor x, const std::string& name, std::span<const int64_t> widths,
                            bool last_relu) {
    for (size_t i = 1; i < widths.size(); ++i) {
      TRY_ASSIGN(x, Linear(x, name + "." + std::to_string(i - 1), widths[i], widths[i - 1], true));
      if (!last_relu && i + 1 == widths.size()) break;
      TRY_ASSIGN(x, builder_.Unary(MapOp::kRelu, x));
    }
    return x;
  }

  // Rows of a table, summed where a candidate has several.
  Result<Tensor> Feature(size_t i) {
    const std::string number = std::to_string(i);
    ir::Shape shape{ir::Symbol(kBatch)};
    if (!published_.hots.empty()) shape.push_back(ir::Constant(published_.hots[i]));
    const Tensor ids = builder_.Input("ids_" + number, DType::kI64, shape);
    const Tensor table =
        builder_.Weight("table." + number, DType::kF32, {published_.rows[i], published_.columns});
    return published_.hots.empty() ? builder_.Embedding(table, ids)
                                   : builder_.EmbeddingBag(table, ids, {}, {}, {});
  }

  // Products of all pairs of features, each pair once, behind the dense feature.
  Result<Tensor> Dots(std::span<const Tensor> features) {
    const auto count = std::ssize(features);
    TRY_ASSIGN(const Tensor all, builder_.Stack(features, 1));
    TRY_ASSIGN(const Tensor dots, builder_.Contract(all, all, false, true));
    TRY_ASSIGN(const Tensor flat, builder_.Flatten(dots, 1, 3));
    std::vector<int64_t> below;
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < i; ++j) below.push_back(i * count + j);
    TRY_ASSIGN(const Tensor index,
               builder_.Constant(DType::kI64, {std::ssize(below)}, ToBytes(DType::kI64, below)));
    TRY_ASSIGN(const Tensor pairs, builder_.Take(flat, index, 1));
    return builder_.Join(std::vector{features.front(), pairs}, 1);
  }

  // x_{l+1} = x_0 * (W_l (V_l x_l) + b_l) + x_l
  Result<Tensor> Cross(std::span<const Tensor> features) {
    TRY_ASSIGN(const Tensor x0, builder_.Join(features, 1));
    const int64_t width = std::ssize(features) * published_.columns;
    Tensor x = x0;
    for (int64_t i = 0; i < published_.cross_layers; ++i) {
      const std::string name = "cross." + std::to_string(i);
      TRY_ASSIGN(const Tensor v, Linear(x, name + ".v", published_.cross_rank, width, false));
      TRY_ASSIGN(const Tensor w, Linear(v, name + ".w", width, published_.cross_rank, true));
      TRY_ASSIGN(const Tensor crossed, builder_.Binary(MapOp::kMul, x0, w));
      TRY_ASSIGN(x, builder_.Binary(MapOp::kAdd, crossed, x));
    }
    return x;
  }

  const PublishedRecommender& published_;
  TensorBuilder builder_;
};

}  // namespace

std::span<const PublishedRecommender> PublishedRecommenders() {
  static const PublishedRecommender all[] = {kDlrmKaggle, kDcnV2MlPerf};
  return all;
}

const PublishedRecommender* FindPublishedRecommender(std::string_view name) {
  const auto all = PublishedRecommenders();
  const auto found = std::ranges::find(all, name, &PublishedRecommender::name);
  return found == all.end() ? nullptr : &*found;
}

Result<TensorModel> BuildPublishedRecommender(const PublishedRecommender& recommender,
                                              const TensorOptions& options) {
  TRY_ASSIGN(TensorBuilder::Built built, Recommender(recommender, options).Build());
  TensorModel model;
  model.format = recommender.name;
  model.inputs = PortsOf(built.inputs, built.graph);
  model.outputs = PortsOf(built.outputs, built.graph);
  model.graph = std::move(built.graph);
  return model;
}

}  // namespace millpower::import
