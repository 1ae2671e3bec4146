#include "chip_truth/rows.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>

#include "base/mapped_file.h"

namespace millpower::truth {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 28;

struct KindColumns {
  Kind kind;
  const char* name;
  std::vector<const char*> columns;
};

const std::vector<KindColumns>& Kinds() {
  static const std::vector<KindColumns> kinds = {
      {Kind::kGemm, "gemm", {"gemm_dtype", "m", "n", "k", "latency"}},
      {Kind::kAttention,
       "attention",
       {"batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "attn_dtype",
        "kv_cache_dtype", "step", "window_size", "latency"}},
      {Kind::kExperts,
       "moe",
       {"moe_dtype", "num_tokens", "hidden_size", "inter_size", "topk", "num_experts",
        "moe_tp_size", "moe_ep_size", "distribution", "latency"}},
      {Kind::kCollective,
       "collective",
       {"op_name", "nccl_dtype", "num_gpus", "message_size", "latency"}},
      {Kind::kServing,
       "serving",
       {"backend", "precision", "mode", "isl", "osl", "batch_size", "tp_size", "silicon_ttft_ms",
        "silicon_tpot_ms"}},
      {Kind::kDecodeRate,
       "decode rate",
       {"model_path", "precision", "batch_size", "isl", "osl", "decode_tokens_per_s"}},
  };
  return kinds;
}

std::vector<std::string> Cells(const std::string& line) {
  std::vector<std::string> cells(1);
  bool quoted = false;
  for (const char c : line) {
    if (c == '"')
      quoted = !quoted;
    else if (c == ',' && !quoted)
      cells.emplace_back();
    else if (c != '\r')
      cells.back() += c;
  }
  return cells;
}

std::unexpected<Error> Bad(const std::string& message) {
  return Fail(ErrorCode::kInvalidArgument, message);
}

}  // namespace

const char* Name(Kind kind) {
  for (const KindColumns& known : Kinds())
    if (known.kind == kind) return known.name;
  return "?";
}

Result<int64_t> Row::Integer(const std::string& column) const {
  TRY_ASSIGN(const double value, Real(column));
  if (value != std::floor(value) || std::abs(value) > 1e15)
    return Bad("line " + std::to_string(line) + ": " + column + " is '" + Text(column) +
               "', not a whole number");
  return static_cast<int64_t>(value);
}

Result<double> Row::Real(const std::string& column) const {
  const std::string& text = Text(column);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    return Bad("line " + std::to_string(line) + ": " + column + " is '" + text + "', not a number");
  return value;
}

Result<Table> ReadTable(const std::filesystem::path& path) {
  TRY_ASSIGN(const std::string text, ReadFile(path, kMaxBytes));
  std::stringstream lines(text);
  std::string line;
  if (!std::getline(lines, line)) return Bad(path.string() + " is empty");
  const std::vector<std::string> header = Cells(line);
  Table table;
  bool known = false;
  for (const KindColumns& kind : Kinds()) {
    bool all = true;
    for (const char* column : kind.columns)
      all &= std::ranges::find(header, column) != header.end();
    if (!all) continue;
    table.kind = kind.kind;
    known = true;
  }
  if (!known) return Bad(path.string() + ": its columns are not those of any kind of measurement");
  for (int64_t number = 2; std::getline(lines, line); ++number) {
    if (line.empty() || line == "\r") continue;
    const std::vector<std::string> cells = Cells(line);
    if (cells.size() != header.size())
      return Bad(path.string() + ":" + std::to_string(number) + ": " +
                 std::to_string(cells.size()) + " cells under " + std::to_string(header.size()) +
                 " columns");
    Row row{number, static_cast<int64_t>(table.rows.size()), {}};
    for (size_t i = 0; i < cells.size(); ++i) row.cells[header[i]] = cells[i];
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace millpower::truth
