// Where a graph's weights are read from. Implemented by each importer over its mapped files.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"

namespace millpower::ir {

// A tensor in its file's own type, row-major; of block types (base/dtype.h), blocks along the last
// dimension, which is a multiple of their size. The bytes belong to the source's mapping and need
// not be aligned.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

// Thread-safe.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // Errors: kNotFound, naming the tensor and where it was looked for.
  virtual Result<TensorView> Find(const std::string& name) const = 0;
  // These bytes of a tensor have been copied; whole mapped pages of them may leave memory.
  virtual void Release(std::span<const std::byte> bytes) const = 0;
};

}  // namespace millpower::ir
