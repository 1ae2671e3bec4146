// A tensor as PyTorch stores it: strides over a storage that several tensors may share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "ir/weights.h"

namespace millpower::import::torch {

struct StridedTensor {
  std::string dtype_name;      // as the file has it
  std::optional<DType> dtype;  // absent for a type that we do not read
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;        // in elements, by dimension
  int64_t offset = 0;                  // in elements
  std::span<const std::byte> storage;  // of any length
};

// The number of torch's ScalarType in an exported program (torch/_export/serde/schema.py; not
// c10's), and back to a name for messages.
std::optional<DType> DTypeOfScalarType(int64_t scalar_type);
std::string ScalarTypeName(int64_t scalar_type);

// The tensor row-major: in the storage where it lies so, else put together in `copy`.
// Errors: kUnsupported for a type that we do not read, or more elements than the storage has
// (broadcast by strides of 0); kCorrupt when an element lies outside of the storage.
Result<ir::TensorView> RowMajor(const StridedTensor& tensor, std::vector<std::byte>& copy);

}  // namespace millpower::import::torch
