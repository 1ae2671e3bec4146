// What real runs have shown of who works: the popularity of experts, recorded with `millpower
// perplexity --record-experts`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"

namespace millpower::plan {

// The text of such a file, JSON: {"experts": [[rows of expert 0, rows of expert 1, ...], ...]}, a
// list for each layer.
std::string RecordedExperts(const std::vector<std::vector<int64_t>>& layers);

// The share of the rows that the most popular expert of a layer has, the next, and so on: of each
// layer's by itself, on average over the layers; 1 in all. Which expert it is differs from layer to
// layer, and says nothing. Errors: kIo; kInvalidArgument (another form, layers of different numbers
// of experts, no rows).
Result<std::vector<double>> ReadExpertShares(const std::filesystem::path& path);

}  // namespace millpower::plan
