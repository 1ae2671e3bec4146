// A model in a GGUF file, or in the parts of a split one: tensors, sizes, tokenizer and chat
// template in one. docs/models.md says what is read.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "import/model.h"

namespace millpower::import {

// Checks everything that can be checked without reading a weight: all tensors of the graph are
// there with the right shape. Takes a second at most; weights are mapped. Errors: those of
// gguf/weights.h, gguf/config.h, gguf/tokenizer.h, ParseGenerationConfig and BuildQwen3Graph, with
// the file's path in front.
Result<Model> OpenGguf(const std::filesystem::path& path);

}  // namespace millpower::import
