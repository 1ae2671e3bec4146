// millpower compile MODEL -o FILE
#include <filesystem>

#include "base/threads.h"
#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/size.h"
#include "cli/tensor_flags.h"
#include "cli/tensor_loader.h"

namespace millpower::cli {
namespace {

struct Flags {
  std::string model, output;
  int64_t max_batch_tokens = 512;
  int64_t max_num_seqs = 64;
  TensorFlags tensor;
  ModelFlags shared;
};

// What both kinds of models become.
struct Imported {
  compile::Compiled compiled;
  isa::Texts texts;
  std::unique_ptr<ir::WeightSource> weights;
  std::vector<std::string> notes;
};

Result<Imported> Import(const Flags& flags) {
  if (IsTensorModelPath(flags.model)) {
    TRY_ASSIGN(const TensorLoadOptions options, ToTensorLoadOptions(flags.tensor, flags.shared));
    TRY_ASSIGN(ImportedTensorModel model, ImportTensorModel(flags.model, options));
    return Imported{std::move(model.compiled), std::move(model.texts), std::move(model.weights),
                    std::move(model.notes)};
  }
  TRY_ASSIGN(LoadOptions options, ToLoadOptions(flags.shared));
  options.max_batch_tokens = flags.max_batch_tokens;
  options.max_num_seqs = flags.max_num_seqs;
  TRY_ASSIGN(ImportedModel model, ImportModel(flags.model, options));
  return Imported{std::move(model.compiled), std::move(model.texts), std::move(model.weights),
                  std::move(model.notes)};
}

Result<void> Compile(const Flags& flags) {
  TRY_ASSIGN(const Imported model, Import(flags));
  for (const std::string& note : model.notes) std::fprintf(stderr, "note: %s\n", note.c_str());

  const isa::Program& program = model.compiled.program;
  ThreadTeam team(ThreadCount(flags.shared));
  ProgressLine progress("writing weights", true);
  std::vector<std::byte> packed;  // one weight at a time
  auto next_weight = [&](int32_t id) -> Result<std::span<const std::byte>> {
    const isa::Buffer& buffer = program.buffers[static_cast<size_t>(id)];
    packed.resize(static_cast<size_t>(isa::BufferBytes(buffer, buffer.rows.size)));
    TRY(compile::PackWeight(buffer, model.compiled.packing.at(buffer.name), *model.weights, team,
                            packed));
    return packed;
  };
  TRY(isa::WritePackage(flags.output, program, model.texts, next_weight, std::ref(progress)));
  std::printf("%s: %s, Program '%s'\n", flags.output.c_str(),
              FormatSize(static_cast<int64_t>(std::filesystem::file_size(flags.output))).c_str(),
              program.name.c_str());
  return {};
}

}  // namespace

Command AddCompile(CLI::App& app) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("compile", "Compile a model to one file that starts by mmap");
  command
      ->add_option("model", flags->model,
                   "Model folder (Hugging Face layout), GGUF, ONNX or .pt2 file, or SavedModel")
      ->required();
  command->add_option("-o,--output", flags->output, "File to write, e.g. model.mill")->required();
  command
      ->add_option("--max-batch-tokens", flags->max_batch_tokens,
                   "Tokens of one step at most, all sequences together")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--max-num-seqs", flags->max_num_seqs, "Sequences of one step at most")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  AddCompileFlags(*command, flags->shared);
  AddTensorFlags(*command, flags->tensor);
  return [flags] { return Compile(*flags); };
}

}  // namespace millpower::cli
