#include "import/tensor/published.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace millpower::import {
namespace {

TEST(PublishedRecommenders, AreKnownByName) {
  for (const char* name : {"dlrm-kaggle", "dcnv2-mlperf"}) {
    const PublishedRecommender* found = FindPublishedRecommender(name);
    ASSERT_NE(found, nullptr) << name;
    EXPECT_EQ(found->rows.size(), 26u);
    EXPECT_TRUE(found->hots.empty() || found->hots.size() == 26u);
  }
  EXPECT_EQ(FindPublishedRecommender("dlrm"), nullptr);
}

// What is published of the whole: Criteo Kaggle's 33.8 million distinct values; MLPerf's 204
// million rows, 214 ids a candidate.
TEST(PublishedRecommenders, AddUp) {
  const auto sum = [](const std::vector<int64_t>& v) {
    return std::accumulate(v.begin(), v.end(), int64_t{0});
  };
  EXPECT_EQ(sum(FindPublishedRecommender("dlrm-kaggle")->rows), 33762577);
  EXPECT_EQ(sum(FindPublishedRecommender("dcnv2-mlperf")->rows), 204184588);
  EXPECT_EQ(sum(FindPublishedRecommender("dcnv2-mlperf")->hots), 214);
}

TEST(PublishedRecommenders, BuildGraphsOfTheirShape) {
  for (const PublishedRecommender& published : PublishedRecommenders()) {
    const auto model = BuildPublishedRecommender(published, {.max_batch = 64});
    ASSERT_TRUE(model) << model.error().message;
    ASSERT_EQ(model->inputs.size(), 27u);
    EXPECT_EQ(model->inputs[0].name, "dense");
    EXPECT_EQ(model->inputs[26].name, "ids_25");
    EXPECT_EQ(model->inputs[26].shape.size(), published.hots.empty() ? 1u : 2u);
    ASSERT_EQ(model->outputs.size(), 1u);
    EXPECT_EQ(ir::ToString(model->outputs[0].shape), "[batch, 1]");
    int64_t bags = 0, products = 0;
    for (const ir::Node& node : model->graph.nodes()) {
      bags += node.op == ir::Op::kEmbeddingBag;
      products += node.op == ir::Op::kContract;
    }
    EXPECT_EQ(bags, 26);
    const auto layers = std::ssize(published.bottom) - 1 + std::ssize(published.top);
    const bool dots = published.cross_layers == 0;
    EXPECT_EQ(products, layers + (dots ? 1 : 2 * published.cross_layers));
  }
}

}  // namespace
}  // namespace millpower::import
