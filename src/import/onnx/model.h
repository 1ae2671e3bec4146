// ONNX files (github.com/onnx/onnx, docs/IR.md): operator sets 13 to 27 of the default domain, and
// older ones where an operator did not change, with external data, sub-graphs and functions.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "base/result.h"
#include "import/tensor/model.h"

namespace millpower::import {

// External data is looked for in the file's folder. Errors: as OpenTensorModel's.
Result<TensorModel> OpenOnnx(const std::filesystem::path& path, const TensorOptions& options = {});

// The bytes of a whole file, which need not outlive the call. `folder`: where external data may
// lie; empty: nowhere.
Result<TensorModel> ParseOnnx(std::span<const std::byte> bytes,
                              const std::filesystem::path& folder = {},
                              const TensorOptions& options = {});

}  // namespace millpower::import
