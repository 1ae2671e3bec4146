// Recommenders at the shapes that were published, without weights, so that a chip can be planned
// for them without downloading anything.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "import/tensor/model.h"

namespace millpower::import {

struct PublishedRecommender {
  const char* name;           // "dlrm-kaggle"
  const char* reference;      // the code that its shapes are from
  int64_t columns;            // of every embedding table
  std::vector<int64_t> rows;  // of each table
  // Ids that a candidate has in each table, which are summed: input [batch, hots]. Empty: one each,
  // input [batch].
  std::vector<int64_t> hots;
  std::vector<int64_t> bottom, top;  // widths of the perceptrons, input first; top: its input aside
  // What stands between them: cross layers of so low a rank (DCNv2), or dot products of all pairs
  // (DLRM) where there are none.
  int64_t cross_layers = 0, cross_rank = 0;
};

std::span<const PublishedRecommender> PublishedRecommenders();

// Null when there is none of that name.
const PublishedRecommender* FindPublishedRecommender(std::string_view name);

// Inputs "dense" f32 [batch, 13] and "ids_0" ... i64; output "prediction" f32 [batch, 1]. Tables
// are f32, as published; TensorModel::weights is null. Of the options only max_batch counts.
Result<TensorModel> BuildPublishedRecommender(const PublishedRecommender& recommender,
                                              const TensorOptions& options);

}  // namespace millpower::import
