#include "serve/inference/table_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "serve/fields.h"
#include "serve/inference/protocol.h"

namespace millpower::serve {
namespace {

constexpr std::string_view kBinary = "application/octet-stream";

std::unexpected<Error> Bad(const char* field, std::string what) {
  return Fail(ErrorCode::kInvalidArgument, std::move(what), field);
}

const char* TypeName(DType type) {
  if (type == DType::kI8) return "int8";
  return type == DType::kI4 ? "int4" : Name(type);
}

Result<TableRows> ReadBinary(std::string_view body, const ranking::Table& table) {
  int64_t count = 0;
  if (body.size() < sizeof count) return Bad("rows", "the body does not say how many rows it has");
  std::memcpy(&count, body.data(), sizeof count);
  body.remove_prefix(sizeof count);
  const auto id_bytes = static_cast<int64_t>(sizeof(int64_t));
  const int64_t row_bytes = id_bytes + table.columns * static_cast<int64_t>(sizeof(float));
  int64_t expected = 0;
  if (count < 0 || __builtin_mul_overflow(count, row_bytes, &expected) ||
      expected != std::ssize(body))
    return Bad("rows", fmt::format("the body has {} bytes for {} rows of table '{}', which take {} "
                                   "each: 8 and 4 for each of {} values",
                                   body.size(), count, table.name, row_bytes, table.columns));
  TableRows read;
  read.rows.resize(static_cast<size_t>(count));
  read.values.resize(static_cast<size_t>(count * table.columns));
  if (count == 0) return read;
  std::memcpy(read.rows.data(), body.data(), read.rows.size() * sizeof(int64_t));
  body.remove_prefix(read.rows.size() * sizeof(int64_t));
  std::memcpy(read.values.data(), body.data(), body.size());
  return read;
}

Result<void> ReadRowNumbers(const Json& json, std::vector<int64_t>& rows) {
  for (const Json& row : json) {
    const bool is_large = row.is_number_unsigned() && row.get<uint64_t>() > INT64_MAX;
    if (!row.is_number_integer() || is_large)
      return Bad("rows", fmt::format("rows[{}] must be a whole number", rows.size()));
    rows.push_back(row.get<int64_t>());
  }
  return {};
}

Result<void> ReadValues(const Json& row, size_t index, const ranking::Table& table,
                        std::vector<float>& values) {
  if (!row.is_array() || std::ssize(row) != table.columns)
    return Bad("values", fmt::format("values[{}] must be a list of {} numbers, as rows of table "
                                     "'{}' are",
                                     index, table.columns, table.name));
  for (size_t i = 0; i < row.size(); ++i) {
    if (!row[i].is_number())
      return Bad("values", fmt::format("values[{}][{}] is not a number", index, i));
    values.push_back(static_cast<float>(row[i].get<double>()));
  }
  return {};
}

Result<TableRows> ReadJson(std::string_view body, const ranking::Table& table) {
  TRY_ASSIGN(const Json json, ParseBody(body));
  for (const auto& [name, value] : json.items())
    if (name != "rows" && name != "values")
      return Bad(name.c_str(), "'" + name + "' is no field of a row update");
  for (const char* name : {"rows", "values"})
    if (!json.contains(name) || !json[name].is_array())
      return Bad(name, fmt::format("{} must be a list", name));
  TableRows read;
  TRY(ReadRowNumbers(json["rows"], read.rows));
  for (size_t i = 0; i < json["values"].size(); ++i)
    TRY(ReadValues(json["values"][i], i, table, read.values));
  return read;
}

}  // namespace

std::optional<TablePath> ReadTablePath(std::string_view path) {
  constexpr std::string_view kTables = "/tables/", kRows = "/rows";
  const size_t at = path.find(kTables);
  if (at == std::string_view::npos || !path.ends_with(kRows)) return std::nullopt;
  const size_t begin = at + kTables.size();
  if (path.size() <= begin + kRows.size()) return std::nullopt;
  const auto model = ReadModelPath(path.substr(0, at), {});
  if (!model) return std::nullopt;
  return TablePath{.model = model->name,
                   .version = model->version,
                   .table = std::string(path.substr(begin, path.size() - kRows.size() - begin))};
}

Result<TableRows> ReadTableRows(std::string_view body, std::string_view content_type,
                                const ranking::Table& table) {
  return content_type.starts_with(kBinary) ? ReadBinary(body, table) : ReadJson(body, table);
}

Result<const ranking::Table*> FindTable(const ranking::Model& model, const std::string& name) {
  const auto found = std::ranges::find(model.tables, name, &ranking::Table::name);
  if (found != model.tables.end()) return &*found;
  return Fail(ErrorCode::kNotFound, fmt::format("model '{}' has no table '{}'", model.name, name),
              "table");
}

Json TablesJson(const ranking::Model& model) {
  Json tables = Json::array();
  for (const ranking::Table& table : model.tables)
    tables.push_back({{"name", table.name},
                      {"rows", table.rows},
                      {"columns", table.columns},
                      {"type", TypeName(table.dtype)}});
  return {{"model_name", model.name},
          {"model_version", std::to_string(model.version)},
          {"tables", std::move(tables)}};
}

}  // namespace millpower::serve
