// A Hugging Face model folder, as `huggingface-cli download` or save_pretrained leaves it.
// docs/models.md says which files are read.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "import/hf/config.h"
#include "import/hf/generation.h"
#include "import/hf/weights.h"
#include "import/qwen3/graph.h"

namespace millpower::import {

struct HfFolder {
  Qwen3Config config;
  GenerationDefaults generation;
  std::string tokenizer_json;  // the file's text; empty when the folder has none
  std::string chat_template;   // Jinja; empty when the folder has none
  std::unique_ptr<HfWeights> weights;
  // What a person should know about the folder but need not stop at, one line each.
  std::vector<std::string> notes;

  // Errors: those of BuildQwen3Graph on `options`; the weights are known to fit.
  Result<ir::Graph> BuildGraph(const GraphOptions& options = {}) const {
    return BuildQwen3Graph(config, options, weights.get());
  }
};

// Checks everything that can be checked without reading a weight: all tensors of the graph are in
// the files with the right shape and a type that we read. Takes milliseconds; weights are mapped.
// Errors: kNotFound ("no config.json in PATH"), and those of config.h, generation.h, weights.h and
// BuildQwen3Graph, with the file's path in front.
Result<HfFolder> OpenHfFolder(const std::filesystem::path& path);

}  // namespace millpower::import
