// From a path to a model that can run: a compiled file, mapped; or a model folder or a GGUF file,
// imported, compiled and packed now.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "compile/compile.h"
#include "import/hf/generation.h"
#include "isa/package.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace millpower::cli {

struct LoadOptions {
  compile::Options compile;                     // not of a compiled file, which has its own
  std::optional<text::ChatFormat> chat_format;  // instead of what the model says
  int64_t max_batch_tokens = 512;               // likewise: rows of one launch
  int64_t max_num_seqs = 64;                    // likewise: sequences of one launch
  int64_t max_picked = 0;                       // likewise: rows with logits; 0: max_num_seqs
  int ranks = 1;                                // chips that one Program is split over
  int stages = 1, stage = 0;                    // into which a pipeline cuts its layers
  int threads = 1;                              // for packing
  bool show_progress = true;                    // on standard error, when it is a terminal
  isa::Progress on_progress = nullptr;          // told besides: bytes read or packed
};

// What a model is called that was given no name: the path's last part, of a file without extension
// and number of its part.
std::string DefaultModelName(const std::filesystem::path& path);

struct LoadedModel {
  std::string name;  // the path's last part, without .gguf and the number of a part
  std::shared_ptr<const isa::Program> program;
  isa::BoundWeights weights;
  std::unique_ptr<text::Tokenizer> tokenizer;
  text::ChatFormat chat_format = text::ChatFormat::kQwen3;
  import::GenerationDefaults generation;
};

// Errors: those of the importer and of ReadPackage; kUnsupported for a chat template that is not
// known, unless `chat_format` is given; kInvalidArgument for options that a compiled file has
// settled otherwise.
Result<LoadedModel> LoadModel(const std::filesystem::path& path, const LoadOptions& options);

// A model folder or GGUF file as `compile` writes it: all but the packed weights.
struct ImportedModel {
  compile::Compiled compiled;
  isa::Texts texts;
  std::unique_ptr<ir::WeightSource> weights;  // null when made from a config alone
  std::vector<std::string> notes;
};

Result<ImportedModel> ImportModel(const std::filesystem::path& path, const LoadOptions& options);

// A Program without weights: from a config.json file, or from the name of a published model such
// as "qwen3-32b". Errors: kNotFound, listing the names there are.
Result<ImportedModel> ImportShape(const std::string& config_or_name, const LoadOptions& options);

// The text form of the graph that a folder, a GGUF file, a config.json or a published name is
// compiled from.
Result<std::string> GraphText(const std::string& model, const LoadOptions& options);

}  // namespace millpower::cli
