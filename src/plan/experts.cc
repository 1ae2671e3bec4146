#include "plan/experts.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/json.h"
#include "base/mapped_file.h"

namespace millpower::plan {
namespace {

constexpr size_t kMaxBytes = size_t{16} << 20;
constexpr double kMaxRows = 1e15;

// Shares of the rows, the largest first; empty when it is no list of counts.
std::vector<double> SharesOf(const Json& layer) {
  std::vector<double> shares;
  if (!layer.is_array()) return {};
  for (const Json& rows : layer) {
    if (!rows.is_number() || !(rows.get<double>() >= 0) || rows.get<double>() > kMaxRows) return {};
    shares.push_back(rows.get<double>());
  }
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  if (sum == 0) return {};
  for (double& share : shares) share /= sum;
  std::ranges::sort(shares, std::greater());
  return shares;
}

}  // namespace

std::string RecordedExperts(const std::vector<std::vector<int64_t>>& layers) {
  return DumpJson(Json{{"experts", layers}}) + "\n";
}

Result<std::vector<double>> ReadExpertShares(const std::filesystem::path& path) {
  TRY_ASSIGN(const std::string text, ReadFile(path, kMaxBytes));
  const auto bad = [&](const std::string& message) {
    return Fail(ErrorCode::kInvalidArgument,
                path.string() + ": " + message +
                    "; expected what `perplexity --record-experts` writes: {\"experts\": [[rows of "
                    "expert 0, ...], ...]}, a list for each layer");
  };
  const auto json = ParseJson(text);
  if (!json) return bad(json.error().message);
  if (!json->is_object() || !json->contains("experts") || !(*json)["experts"].is_array() ||
      (*json)["experts"].empty())
    return bad("no list \"experts\"");
  std::vector<double> mean;
  const Json& layers = (*json)["experts"];
  for (const Json& layer : layers) {
    const std::vector<double> shares = SharesOf(layer);
    if (shares.empty()) return bad("a layer without rows of experts");
    if (mean.empty()) mean.resize(shares.size());
    if (mean.size() != shares.size()) return bad("layers have different numbers of experts");
    for (size_t i = 0; i < shares.size(); ++i)
      mean[i] += shares[i] / static_cast<double>(layers.size());
  }
  return mean;
}

}  // namespace millpower::plan
