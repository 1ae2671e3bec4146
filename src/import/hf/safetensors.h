// The safetensors file format (github.com/huggingface/safetensors, "Format"):
//   8 bytes   length of the header, little-endian
//   header    JSON: {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ...,
//             "__metadata__": {"key": "text"}}
//   the rest  the tensors' bytes, row-major; offsets count from here
// The file is not trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"

namespace millpower::import {

struct SafetensorsEntry {
  std::string dtype_name;      // as the file has it: "BF16"
  std::optional<DType> dtype;  // absent for a type that we do not read
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // inside the file
};

using SafetensorsTable = std::map<std::string, SafetensorsEntry>;

inline constexpr size_t kMaxSafetensorsHeaderBytes = 100'000'000;  // as the reference reader

// The tensors of a whole file in memory. Types that we do not read are listed, so that a file that
// has them for other readers still opens.
// Errors: kCorrupt: the header is truncated, longer than kMaxSafetensorsHeaderBytes, or malformed;
// an entry is incomplete, is twice there, or has a size that its shape does not give; tensors do
// not fill the rest of the file exactly, without overlap or hole.
Result<SafetensorsTable> ParseSafetensors(std::span<const std::byte> file);

}  // namespace millpower::import
