// Embedding tables of the models it serves, and new values for their rows.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "cli/admin/menu.h"
#include "cli/npy.h"
#include "cli/progress.h"

namespace millpower::cli::admin {
namespace {

constexpr int64_t kChunkBytes = 4 << 20;

struct Flags {
  std::string model, table, rows, values;
  int64_t version = 0, chunk_rows = 0;
};

std::unexpected<Error> Bad(const std::string& what) {
  return Fail(ErrorCode::kInvalidArgument, what);
}

// Each element as a `To`, where the array's type is one of the integers or floats that have no
// other values.
template <typename To, typename From>
std::vector<To> As(const NpyArray& array) {
  std::vector<To> values(array.bytes.size() / sizeof(From));
  for (size_t i = 0; i < values.size(); ++i) {
    From value;
    std::memcpy(&value, array.bytes.data() + i * sizeof value, sizeof value);
    values[i] = static_cast<To>(value);
  }
  return values;
}

Result<std::vector<int64_t>> ReadRows(const std::string& path) {
  TRY_ASSIGN(const NpyArray array, ReadNpy(path));
  if (array.is_string || array.shape.size() != 1)
    return Bad(path + " is not a list of row numbers: its shape has not one dimension");
  if (array.dtype == DType::kI64) return As<int64_t, int64_t>(array);
  if (array.dtype == DType::kI32) return As<int64_t, int32_t>(array);
  if (array.dtype == DType::kU32) return As<int64_t, uint32_t>(array);
  return Bad(path + " holds " + Name(array.dtype) + "; row numbers are int64 or int32");
}

struct Values {
  int64_t columns = 0;
  std::vector<float> values;
};

Result<Values> ReadValues(const std::string& path) {
  TRY_ASSIGN(const NpyArray array, ReadNpy(path));
  if (array.is_string || array.shape.size() != 2)
    return Bad(path + " is not a matrix with a line for each row");
  Values read{.columns = array.shape[1], .values = {}};
  if (array.dtype == DType::kF32) {
    read.values = As<float, float>(array);
  } else if (array.dtype == DType::kF64) {
    read.values = As<float, double>(array);
  } else {
    return Bad(path + " holds " + Name(array.dtype) + "; values are float32 or float64");
  }
  return read;
}

std::string ModelPathOf(const Flags& flags) {
  std::string path = "/v2/models/" + PercentEncoded(flags.model);
  if (flags.version > 0) path += fmt::format("/versions/{}", flags.version);
  return path;
}

// As serve/inference/table_rows.h has it.
std::string BodyOf(std::span<const int64_t> rows, std::span<const float> values) {
  std::string body;
  const auto append = [&](const void* from, size_t size) {
    body.append(static_cast<const char*>(from), size);
  };
  const auto count = std::ssize(rows);
  append(&count, sizeof count);
  append(rows.data(), rows.size_bytes());
  append(values.data(), values.size_bytes());
  return body;
}

std::string Done(const Json& answer) {
  return fmt::format("{} rows of '{}' of model '{}', version {}, changed\n",
                     answer.value("rows", int64_t{0}), answer.value("table", ""),
                     answer.value("model_name", ""), answer.value("model_version", ""));
}

Result<void> Update(const Menu::Call& call, const Flags& flags) {
  TRY_ASSIGN(const std::vector<int64_t> rows, ReadRows(flags.rows));
  TRY_ASSIGN(const Values values, ReadValues(flags.values));
  const auto columns = static_cast<size_t>(values.columns);
  if (rows.empty()) return Bad(flags.rows + " holds no rows");
  if (rows.size() * columns != values.values.size())
    return Bad(fmt::format("{} has {} rows, and {} {}", flags.rows, rows.size(), flags.values,
                           columns == 0 ? 0 : values.values.size() / columns));
  const int64_t row_bytes = 8 + 4 * values.columns;
  const auto chunk = static_cast<size_t>(
      flags.chunk_rows > 0 ? flags.chunk_rows : std::max<int64_t>(1, kChunkBytes / row_bytes));
  const std::string path = ModelPathOf(flags) + "/tables/" + PercentEncoded(flags.table) + "/rows";
  ProgressLine progress("changing rows", !call.as_json,
                        [](int64_t total) { return fmt::format("{} rows", total); });
  Json last;
  for (size_t at = 0; at < rows.size(); at += chunk) {
    const size_t count = std::min(chunk, rows.size() - at);
    auto answer = call.client.PostBytes(
        path, BodyOf(std::span(rows).subspan(at, count),
                     std::span(values.values).subspan(at * columns, count * columns)));
    if (!answer && at > 0)
      return FailAt(fmt::format("after {} of {} rows were changed", at, rows.size()),
                    answer.error());
    if (!answer) return std::unexpected(answer.error());
    last = *std::move(answer);
    progress(static_cast<int64_t>(at + count), std::ssize(rows));
  }
  last["rows"] = rows.size();
  Print(call, last, Done);
  return {};
}

std::string List(const Json& answer) {
  std::string lines;
  for (const Json& table : answer.value("tables", Json::array()))
    lines += fmt::format("{:<40} {} rows of {} {}\n", table.value("name", ""),
                         table.value("rows", int64_t{0}), table.value("columns", int64_t{0}),
                         table.value("type", ""));
  return lines;
}

}  // namespace

void AddRows(Menu& menu) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* tables = menu.AddCommand(menu.app, "tables", "The embedding tables of a model",
                                     [flags](const Menu::Call& call) -> Result<void> {
                                       TRY_ASSIGN(const Json answer,
                                                  call.client.Get(ModelPathOf(*flags) + "/tables"));
                                       Print(call, answer, List);
                                       return {};
                                     });
  CLI::App* update = menu.AddCommand(
      menu.app, "update-rows", "New values for rows of an embedding table, while it answers",
      [flags](const Menu::Call& call) { return Update(call, *flags); });
  for (CLI::App* command : {tables, update}) {
    command->add_option("model", flags->model, "Its name")->required();
    command->add_option("--version", flags->version, "Of the model; default: the highest")
        ->check(CLI::PositiveNumber);
  }
  update->add_option("table", flags->table, "The table's name, as `tables` tells it")->required();
  update->add_option("--rows", flags->rows, "Which rows: an .npy file of int64 [n]")->required();
  update
      ->add_option("--values", flags->values, "Their values: an .npy file of float32 [n, columns]")
      ->required();
  update
      ->add_option("--chunk-rows", flags->chunk_rows,
                   "Rows of one request, which change between the same two launches; default: as "
                   "many as take 4 MiB")
      ->check(CLI::PositiveNumber);
}

}  // namespace millpower::cli::admin
