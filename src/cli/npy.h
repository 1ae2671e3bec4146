// NumPy's .npy files (numpy.lib.format, versions 1 to 3): one array each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"

namespace millpower::cli {

struct NpyArray {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;      // row-major, little-endian; empty for strings
  bool is_string = false;            // dtypes S and U
  std::vector<std::string> strings;  // of those, UTF-8; trailing zeros are no part of them
};

// Little-endian arrays in C order of the element types that numpy has, and strings. numpy has no
// bf16: its bits are a uint16. Errors: kNotFound, kIo; kCorrupt; kUnsupported (Fortran
// order, big-endian, objects, records).
Result<NpyArray> ReadNpy(const std::filesystem::path& path);
Result<NpyArray> ParseNpy(std::span<const std::byte> file);

// Version 1. bf16 is written as uint16, the bits. Errors: kIo.
Result<void> WriteNpy(const std::filesystem::path& path, DType dtype,
                      std::span<const int64_t> shape, std::span<const std::byte> bytes);

}  // namespace millpower::cli
