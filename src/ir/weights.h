// Where a graph's weights are read from. Implemented by each importer over its mapped files.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
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

  // Bytes of a tensor, where they lie in a file that is mapped privately, as memory that may be
  // written without changing the file, and what keeps it there when the source is gone. Absent, as
  // by default: they must be copied.
  struct Shared {
    std::span<std::byte> bytes;
    std::shared_ptr<const void> owner;
  };
  virtual std::optional<Shared> Share(std::span<const std::byte>) const { return std::nullopt; }
};

}  // namespace millpower::ir
