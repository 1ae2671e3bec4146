// Tables of sorted keys and values in LevelDB's file format (github.com/google/leveldb,
// doc/table_format.md), in which TensorFlow keeps the index of a model's variables.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "base/result.h"

namespace millpower::import {

using SortedTable = std::map<std::string, std::string, std::less<>>;

// Every key with its value. Blocks may be Snappy-compressed; all checksums are verified. What it
// takes in memory is bounded by a multiple of the file's size. Errors: kCorrupt, with the offset of
// the block.
Result<SortedTable> ReadTable(std::span<const std::byte> file);

// CRC-32C (Castagnoli) as the format stores it: rotated and moved by a constant.
uint32_t MaskedCrc32c(std::span<const std::byte> bytes);
uint32_t MaskedCrc32c(std::span<const std::byte> bytes, std::byte last);  // `last` behind them

}  // namespace millpower::import
