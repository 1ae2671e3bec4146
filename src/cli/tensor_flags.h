// Flags of subcommands that import models of tensors.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/commands.h"
#include "cli/tensor_loader.h"

namespace millpower::cli {

struct TensorFlags {
  int64_t max_batch = 2048;
  std::vector<std::string> symbol_max;    // NAME=N
  std::vector<std::string> input_shapes;  // NAME=2,3
  std::string signature = "serving_default";
  std::string table_type = "auto";
};

// --max-batch, --symbol-max, --input-shape, --signature, --tables
void AddTensorFlags(CLI::App& command, TensorFlags& flags);
Result<TensorLoadOptions> ToTensorLoadOptions(const TensorFlags& flags, const ModelFlags& shared);

}  // namespace millpower::cli
