// Where a graph's weights are read from. Implemented by each importer over its mapped files.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"

namespace millpower::ir {

// A tensor in its file's own type, row-major. The bytes belong to the source's mapping and need
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
  // The tensor has been copied; its mapped pages may leave memory.
  virtual void Release(const TensorView& tensor) const = 0;
};

}  // namespace millpower::ir
