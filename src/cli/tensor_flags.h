// Flags of subcommands that import models of tensors.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <span>
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
  std::vector<std::string> features;  // NAME=POLICY
};

// --max-batch, --symbol-max, --input-shape, --signature, --tables, --feature
void AddTensorFlags(CLI::App& command, TensorFlags& flags);
Result<TensorLoadOptions> ToTensorLoadOptions(const TensorFlags& flags, const ModelFlags& shared);

// Where there are several models, of which `names` are all, "MODEL/INPUT" is an input of that one;
// other names are inputs of each. What concerns `model`, by its inputs.
std::map<std::string, import::IdPolicy> PoliciesFor(
    const std::string& model, std::span<const std::string> names,
    const std::map<std::string, import::IdPolicy>& policies);

}  // namespace millpower::cli
