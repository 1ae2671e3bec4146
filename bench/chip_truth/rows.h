// Rows of measurements, from CSV files whose kind is told by their columns.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"

namespace millpower::truth {

enum class Kind { kGemm, kAttention, kExperts, kCollective, kServing, kDecodeRate };
const char* Name(Kind kind);

struct Row {
  int64_t line = 0;   // in the file, from 1
  int64_t index = 0;  // among all rows of the file, from 0
  std::map<std::string, std::string> cells;

  const std::string& Text(const std::string& column) const { return cells.at(column); }
  // Errors: kInvalidArgument, naming line and column.
  Result<int64_t> Integer(const std::string& column) const;
  Result<double> Real(const std::string& column) const;
};

struct Table {
  Kind kind = Kind::kGemm;
  std::vector<Row> rows;
};

// Columns that are not needed are ignored. Errors: kIo; kInvalidArgument: not the columns of any
// kind, or a row with fewer cells, by line.
Result<Table> ReadTable(const std::filesystem::path& path);

}  // namespace millpower::truth
