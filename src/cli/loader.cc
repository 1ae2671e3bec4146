#include "cli/loader.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "base/json.h"
#include "base/mapped_file.h"
#include "base/threads.h"
#include "cli/progress.h"
#include "import/hf/config.h"
#include "import/model.h"
#include "import/qwen3/published.h"
#include "isa/sampling.h"

namespace millpower::cli {
namespace {

constexpr size_t kMaxConfigBytes = 16 << 20;

import::GraphOptions GraphOptionsOf(const LoadOptions& options) {
  import::GraphOptions graph;
  graph.max_rows = options.max_batch_tokens;
  graph.max_seqs = options.max_num_seqs;
  graph.max_picked = options.max_picked > 0 ? options.max_picked : options.max_num_seqs;
  graph.ranks = options.ranks;
  graph.stages = options.stages;
  graph.stage = options.stage;
  graph.page_positions = isa::kPagePositions;
  graph.sample_param_words = isa::kSampleParamWords;
  graph.sample_adjustment_words = isa::kSampleAdjustmentWords;
  graph.sample_record_words = isa::kSampleRecordWords;
  return graph;
}

// Tells the terminal and whoever else wants to know.
isa::Progress Both(ProgressLine& line, const LoadOptions& options) {
  return [&](int64_t done_bytes, int64_t total_bytes) {
    line(done_bytes, total_bytes);
    if (options.on_progress) options.on_progress(done_bytes, total_bytes);
  };
}

std::string GenerationText(const import::GenerationDefaults& generation) {
  Json json = {{"do_sample", true},         {"temperature", generation.temperature},
               {"top_p", generation.top_p}, {"min_p", generation.min_p},
               {"top_k", generation.top_k}, {"eos_token_id", generation.eos_token_ids}};
  if (generation.max_new_tokens) json["max_new_tokens"] = *generation.max_new_tokens;
  return DumpJson(json);
}

// What travels with the Program, checked as it will be when it is loaded.
Result<LoadedModel> Assemble(const std::string& name, isa::Program program,
                             isa::BoundWeights weights, const isa::Texts& texts,
                             const LoadOptions& options) {
  LoadedModel model;
  model.name = name;
  auto text = [&](const char* key) {
    const auto found = texts.find(key);
    return found == texts.end() ? std::string() : found->second;
  };
  const int64_t vocab_size = program.FactOr("vocab_size", 0);
  if (vocab_size == 0) return Fail(ErrorCode::kUnsupported, name + " is not a language model");
  TRY_ASSIGN(model.tokenizer, text::Tokenizer::FromJson(text("tokenizer")));
  if (model.tokenizer->vocab_size() > vocab_size)
    return Fail(ErrorCode::kCorrupt, "the tokenizer has ids up to " +
                                         std::to_string(model.tokenizer->vocab_size() - 1) +
                                         ", the model only " + std::to_string(vocab_size));
  if (options.chat_format) {
    model.chat_format = *options.chat_format;
  } else {
    TRY_ASSIGN(model.chat_format, text::ChatFormatFromName(text("chat")));
  }
  TRY_ASSIGN(model.generation, import::ParseGenerationConfig(text("generation"), vocab_size));
  model.program = std::make_shared<const isa::Program>(std::move(program));
  model.weights = std::move(weights);
  return model;
}

// A type as the flags name it.
const char* FlagName(DType type) {
  switch (type) {
    case DType::kQ8_0:
    case DType::kI8:
      return "int8";
    case DType::kQ4_0:
      return "int4";
    case DType::kF8E4M3:
      return "fp8";
    default:
      return Name(type);
  }
}

// A compiled file has settled its types: asking for others is an error, not a wish. Where blocks
// were asked for, routers of experts are floats still.
Result<void> CheckTypes(const isa::Program& program, const compile::Options& options) {
  auto settled = [](const char* flag, DType type) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("it is compiled with --{} {}; compile the model again to change that",
                            flag, FlagName(type)),
                flag);
  };
  bool has_asked = false;
  std::optional<DType> router;
  for (const isa::Buffer& buffer : program.buffers) {
    if (buffer.form == isa::Form::kPages && buffer.dtype != options.kv_type.value_or(buffer.dtype))
      return settled("kv", buffer.dtype);
    if (buffer.form != isa::Form::kPacked || !options.weight_type) continue;
    if (buffer.dtype == *options.weight_type)
      has_asked = true;
    else if (IsQuantisedType(*options.weight_type) && !IsQuantisedType(buffer.dtype))
      router = buffer.dtype;
    else
      return settled("weights", buffer.dtype);
  }
  if (router && !has_asked) return settled("weights", *router);
  return {};
}

Result<LoadedModel> LoadPackage(const std::filesystem::path& path, const LoadOptions& options) {
  ProgressLine progress("checking weights", options.show_progress);
  TRY_ASSIGN(isa::Package package, isa::ReadPackage(path, Both(progress, options)));
  if (const auto types = CheckTypes(package.program, options.compile); !types)
    return FailAt(path.string(), types.error());
  return Assemble(DefaultModelName(path), std::move(package.program), std::move(package.weights),
                  package.texts, options);
}

// What is stored otherwise than in the file, though nobody asked for it.
void NoteConversions(const compile::Compiled& compiled, const compile::Options& options,
                     std::vector<std::string>& notes) {
  if (options.weight_type) return;
  for (const compile::Conversion& c : compiled.conversions) {
    const std::string as =
        c.from == c.to ? std::string("in 8 bits a value") : std::string("as ") + Name(c.to);
    notes.push_back(fmt::format("{} tensors of {} are stored {}, such as '{}'", c.tensors,
                                Name(c.from), as, c.example));
  }
}

}  // namespace

std::string DefaultModelName(const std::filesystem::path& given) {
  std::error_code ignored;
  // "models/demo/", "models/./demo" and "models/demo" have one name; a folder may be called ".".
  std::filesystem::path path = std::filesystem::absolute(given, ignored).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (std::filesystem::is_regular_file(path, ignored))
    return import::WithoutPartNumber(path.stem());
  return path.filename();
}

Result<ImportedModel> ImportModel(const std::filesystem::path& path, const LoadOptions& options) {
  TRY_ASSIGN(import::Model files, import::OpenModel(path));
  ImportedModel model;
  if (files.tokenizer_json.empty())
    return Fail(ErrorCode::kNotFound, "no tokenizer.json in " + path.string());
  text::ChatFormat format;
  if (options.chat_format) {
    format = *options.chat_format;
  } else if (files.chat_template.empty()) {
    return Fail(ErrorCode::kUnsupported,
                path.string() + " has no chat template; choose the format with --chat-format");
  } else {
    auto detected = text::DetectChatFormat(files.chat_template);
    if (!detected) return FailAt(path.string(), detected.error());
    format = *detected;
  }
  TRY_ASSIGN(const ir::Graph graph, files.BuildGraph(GraphOptionsOf(options)));
  TRY_ASSIGN(model.compiled, compile::Compile(graph, options.compile));
  model.texts = {{"tokenizer", std::move(files.tokenizer_json)},
                 {"chat", text::ChatFormatName(format)},
                 {"generation", GenerationText(files.generation)},
                 {"source", path.string()}};
  model.notes = std::move(files.notes);
  NoteConversions(model.compiled, options.compile, model.notes);
  model.weights = std::move(files.weights);
  return model;
}

namespace {

Result<ir::Graph> ShapeGraph(const std::string& config_or_name, const LoadOptions& options) {
  if (const import::PublishedModel* published = import::FindPublishedModel(config_or_name))
    return import::BuildQwen3Graph(published->config, GraphOptionsOf(options));
  if (!std::filesystem::is_regular_file(config_or_name)) {
    std::string names;
    for (const import::PublishedModel& model : import::PublishedModels())
      names += std::string(names.empty() ? "" : ", ") + model.name;
    return Fail(ErrorCode::kNotFound,
                config_or_name + " is neither a config.json nor a published model (" + names + ")");
  }
  TRY_ASSIGN(const std::string text, ReadFile(config_or_name, kMaxConfigBytes));
  auto config = import::ParseQwen3Config(text);
  if (!config) return FailAt(config_or_name, config.error());
  return import::BuildQwen3Graph(*config, GraphOptionsOf(options));
}

}  // namespace

Result<ImportedModel> ImportShape(const std::string& config_or_name, const LoadOptions& options) {
  TRY_ASSIGN(const ir::Graph graph, ShapeGraph(config_or_name, options));
  ImportedModel model;
  TRY_ASSIGN(model.compiled, compile::Compile(graph, options.compile));
  return model;
}

Result<std::string> GraphText(const std::string& model, const LoadOptions& options) {
  if (!std::filesystem::is_directory(model) && !import::IsGgufFile(model)) {
    TRY_ASSIGN(const ir::Graph graph, ShapeGraph(model, options));
    return ir::ToText(graph);
  }
  TRY_ASSIGN(const import::Model files, import::OpenModel(model));
  TRY_ASSIGN(const ir::Graph graph, files.BuildGraph(GraphOptionsOf(options)));
  return ir::ToText(graph);
}

Result<LoadedModel> LoadModel(const std::filesystem::path& given, const LoadOptions& options) {
  // "models/demo/" and "models/demo" have one name.
  const std::filesystem::path path = given.has_filename() ? given : given.parent_path();
  if (std::filesystem::is_regular_file(path)) {
    if (isa::IsPackage(path)) return LoadPackage(path, options);
    if (!import::IsGgufFile(path))
      return Fail(
          ErrorCode::kUnsupported,
          path.string() + " is neither a compiled model nor a model folder nor a GGUF file");
  }
  TRY_ASSIGN(ImportedModel imported, ImportModel(path, options));
  for (const std::string& note : imported.notes) spdlog::warn("{}: {}", path.string(), note);
  ThreadTeam team(options.threads);
  isa::BoundWeights weights;
  {
    ProgressLine progress("packing weights", options.show_progress);
    TRY_ASSIGN(weights, compile::PackAll(imported.compiled.program, imported.compiled.packing,
                                         *imported.weights, team, Both(progress, options)));
  }
  return Assemble(DefaultModelName(path), std::move(imported.compiled.program), std::move(weights),
                  imported.texts, options);
}

}  // namespace millpower::cli
