// New values for rows of embedding tables, as the operator's port takes them:
//
//   POST /v2/models/NAME[/versions/V]/tables/TABLE/rows
//
// with JSON, {"rows": [3, 7], "values": [[...], [...]]}, or (application/octet-stream) bytes,
// little-endian, one after the other: how many rows, i64; their numbers, i64; their values, f32.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "ranking/engine.h"

namespace millpower::serve {

struct TablePath {
  std::string model;
  int64_t version = 0;  // 0: not said
  std::string table;
};
// Of "NAME[/versions/V]/tables/TABLE/rows"; the first "/tables/" divides. nullopt: another path, or
// a version that is no number.
std::optional<TablePath> ReadTablePath(std::string_view path);

struct TableRows {
  std::vector<int64_t> rows;
  std::vector<float> values;  // [rows, columns of the table]
};
// Whether rows are there, and values finite, is for the engine to say. Errors: kInvalidArgument,
// naming the field and what is wrong with it.
Result<TableRows> ReadTableRows(std::string_view body, std::string_view content_type,
                                const ranking::Table& table);

// By name. Errors: kNotFound, which names it.
Result<const ranking::Table*> FindTable(const ranking::Model& model, const std::string& name);

// {"model_name", "model_version", "tables": [{"name", "rows", "columns", "type": "int8"}]}; types
// as `--tables` calls them.
Json TablesJson(const ranking::Model& model);

}  // namespace millpower::serve
