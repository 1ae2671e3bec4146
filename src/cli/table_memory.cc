#include "cli/table_memory.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/size.h"

namespace millpower::cli {
namespace {

constexpr int64_t kBoundMinBytes = int64_t{1} << 30;
// Of the bound. What two processors can map while the keeper sleeps its shortest is 100 MB.
constexpr int64_t kHeadroomPart = 8;

}  // namespace

void AddTableMemoryFlag(CLI::App& command, std::string& value) {
  command
      .add_option("--table-memory", value,
                  "Memory that embedding tables read from files may keep resident, e.g. 12GiB, all "
                  "models together; auto: as the system sees fit")
      ->capture_default_str();
}

Result<std::shared_ptr<PageKeeper>> StartTableKeeper(const std::string& value) {
  if (value.empty() || value == "auto") return nullptr;
  const auto bytes = ParseSize(value);
  if (!bytes || *bytes < kBoundMinBytes)
    return Fail(ErrorCode::kInvalidArgument,
                "--table-memory: '" + value + "' is neither auto nor a size of at least 1 GiB",
                "table-memory");
  return PageKeeper::Start(*bytes, *bytes / kHeadroomPart);
}

void KeepTables(const std::shared_ptr<PageKeeper>& keeper, isa::BoundWeights& weights) {
  if (keeper == nullptr || weights.mapped_tables.empty()) return;
  const std::shared_ptr<PageKeeper::Pages> pages =
      keeper->Keep(std::move(weights.owner), weights.mapped_tables);
  weights.before_write = [pages](std::span<const std::byte> bytes) { pages->BeforeWrite(bytes); };
  weights.before_read = [pages](std::span<const std::byte* const> rows, int64_t row_bytes) {
    pages->BeforeRead(rows, row_bytes);
  };
  weights.owner = pages;
}

std::string TableMetricsText(const PageKeeper& keeper) {
  const PageKeeper::Stats stats = keeper.stats();
  const struct {
    const char* name;
    const char* help;
    const char* type;
    int64_t value;
  } series[] = {
      {"bound_bytes", "What mapped tables may keep resident", "gauge", stats.bound_bytes},
      {"mapped_bytes", "Tables read from files", "gauge", stats.mapped_bytes},
      {"resident_bytes", "Of mapped tables, in memory", "gauge", stats.resident_bytes},
      {"written_bytes", "Of mapped tables, changed and so in memory for good", "gauge",
       stats.written_bytes},
      {"given_back_bytes_total", "Of mapped tables, taken out of memory", "counter",
       stats.given_back_bytes},
  };
  std::string text;
  for (const auto& each : series)
    text += fmt::format(
        "# HELP millpower_table_{0} {1}\n# TYPE millpower_table_{0} {2}\n"
        "millpower_table_{0} {3}\n",
        each.name, each.help, each.type, each.value);
  return text;
}

}  // namespace millpower::cli
