// A Hugging Face model folder, as `huggingface-cli download` or save_pretrained leaves it.
// docs/models.md says which files are read.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "import/model.h"

namespace millpower::import {

// Checks everything that can be checked without reading a weight: all tensors of the graph are in
// the files with the right shape and a type that we read. Takes milliseconds; weights are mapped.
// Errors: kNotFound ("no config.json in PATH"), and those of config.h, generation.h, weights.h and
// BuildQwen3Graph, with the file's path in front.
Result<Model> OpenHfFolder(const std::filesystem::path& path);

}  // namespace millpower::import
