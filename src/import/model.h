// A model as it came from its files, ready to become a graph.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "import/hf/generation.h"
#include "import/qwen3/graph.h"

namespace millpower::import {

struct Model {
  Qwen3Config config;
  GenerationDefaults generation;
  std::string tokenizer_json;  // the text of a tokenizer.json; empty when the files have none
  std::string chat_template;   // Jinja; empty when the files have none
  std::unique_ptr<ir::WeightSource> weights;
  // What a person should know about the files but need not stop at, one line each.
  std::vector<std::string> notes;

  // Errors: those of BuildQwen3Graph on `options`; the weights are known to fit.
  Result<ir::Graph> BuildGraph(const GraphOptions& options = {}) const {
    return BuildQwen3Graph(config, options, weights.get());
  }
};

// A Hugging Face folder (hf/folder.h), or a GGUF file (gguf/model.h).
// Errors: theirs; kUnsupported for any other file.
Result<Model> OpenModel(const std::filesystem::path& path);

// Whether a file begins as GGUF files do.
bool IsGgufFile(const std::filesystem::path& path);

// "NAME" of "NAME-00002-of-00003", the stem of a part of a split GGUF model; other names as they
// are.
std::string WithoutPartNumber(std::string stem);

}  // namespace millpower::import
