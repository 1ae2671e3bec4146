// PyTorch's .pt2 files (torch.export.save), without PyTorch: see archive.h for the layouts,
// program.h for the graph, call.h for the operators.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "base/result.h"
#include "import/tensor/model.h"

namespace millpower::import {

// Inputs and outputs are named as the file names them (arguments of forward; keys of a dict that
// is returned, else the nodes that made them), symbolic dimensions as torch named them (s0, s77).
// Errors: kNotFound, kIo, kCorrupt; kOutOfRange: a zip archive that grows too much; kUnsupported,
// which lists all that is not supported with its place; kInvalidArgument: options that do not fit.
Result<TensorModel> OpenPt2(const std::filesystem::path& path, const TensorOptions& options);

// The same of bytes, which must outlive the model.
Result<TensorModel> OpenPt2(std::span<const std::byte> file, const TensorOptions& options);

}  // namespace millpower::import
