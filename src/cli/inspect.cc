// millpower inspect FILE|FOLDER|config.json|NAME
#include <filesystem>
#include <map>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/size.h"
#include "cli/tensor_flags.h"
#include "cli/tensor_loader.h"
#include "cli/workload.h"
#include "import/model.h"
#include "isa/encoding.h"

namespace millpower::cli {
namespace {

struct Flags {
  std::string model;
  bool disassemble = false, graph = false;
  TensorFlags tensor;
  ModelFlags shared;
};

// A Program, and the texts that came with it.
struct Subject {
  isa::Program program;
  isa::Texts texts;
};

Result<Subject> Open(const Flags& flags) {
  const std::filesystem::path path = flags.model;
  if (isa::IsPackage(path)) {
    TRY_ASSIGN(isa::Package package, isa::ReadPackage(path, {}));
    return Subject{std::move(package.program), std::move(package.texts)};
  }
  TRY_ASSIGN(const LoadOptions options, ToLoadOptions(flags.shared));
  TRY_ASSIGN(ImportedModel model, std::filesystem::is_directory(path) || import::IsGgufFile(path)
                                      ? ImportModel(path, options)
                                      : ImportShape(flags.model, options));
  return Subject{std::move(model.compiled.program), std::move(model.texts)};
}

// Of all weights of one type. Packing fills channels and chunks up, so bits a weight are a little
// more than the type's own.
struct WeightSizes {
  int64_t bytes = 0;
  int64_t values = 0;
};

void PrintSummary(const Subject& subject) {
  const isa::Program& program = subject.program;
  std::printf("program      %s (format version %u)\n", program.name.c_str(), isa::kFormatVersion);
  for (const char* text : {"source", "chat", "generation"})
    if (const auto found = subject.texts.find(text); found != subject.texts.end())
      std::printf("%-12s %s\n", text, found->second.c_str());
  for (const auto& [fact, value] : program.facts)
    std::printf("%-12s %lld\n", fact.c_str(), static_cast<long long>(value));

  std::map<DType, WeightSizes> weights;
  int64_t all_weights = 0, scratch = 0;
  for (const isa::Buffer& buffer : program.buffers) {
    const int64_t bytes = isa::BufferBytes(buffer, program.Max(buffer.rows));
    if (buffer.kind == isa::BufferKind::kWeight) {
      weights[buffer.dtype].bytes += bytes;
      weights[buffer.dtype].values += buffer.rows.size * buffer.cols;
      all_weights += bytes;
    } else if (buffer.kind != isa::BufferKind::kKv) {
      scratch += bytes;
    }
  }
  std::map<std::string, int> counts;
  for (const auto& stream : program.streams)
    for (const isa::Instruction& in : stream) ++counts[isa::Info(in.op).name];
  const Workload work = WorkloadOf(program);
  std::printf("weights      %s\n", FormatSize(all_weights).c_str());
  for (const auto& [type, sizes] : weights)
    std::printf("  %-10s %s, %.3f bits a weight\n", Name(type), FormatSize(sizes.bytes).c_str(),
                8 * static_cast<double>(sizes.bytes) / static_cast<double>(sizes.values));
  std::printf("decode       %s of weights a step, and %s of KV for each token before\n",
              FormatSize(static_cast<int64_t>(work.step_weight_bytes)).c_str(),
              FormatSize(static_cast<int64_t>(work.kv_bytes_per_position)).c_str());
  std::printf("scratch      %s\n", FormatSize(scratch).c_str());
  std::printf(
      "matmul       %.3f Gop a token of the layers (f32 %.3f, int8 %.3f), %.3f of the head\n",
      (work.float_ops + work.int8_ops) / 1e9, work.float_ops / 1e9, work.int8_ops / 1e9,
      work.head_ops / 1e9);
  for (const isa::Register& reg : program.registers)
    std::printf("register     %s, up to %lld%s\n", reg.name.c_str(),
                static_cast<long long>(reg.max), reg.at_load ? ", set at load" : "");
  std::printf("instructions");
  for (const auto& [op, count] : counts) std::printf(" %s %d", op.c_str(), count);
  std::printf("\n");
}

void PrintPorts(const char* title, const std::vector<ranking::Port>& ports) {
  for (const ranking::Port& port : ports) {
    std::string shape;
    for (const Size& size : port.shape) shape += (shape.empty() ? "" : ", ") + size.ToString();
    std::printf("%-12s %s %s [%s]\n", title, port.name.c_str(),
                port.is_string ? "string" : Name(port.dtype), shape.c_str());
  }
}

// What a person asks of a model of tensors: what goes in, what comes out, what it is made of.
void PrintTensorModel(const isa::Program& program, const ranking::Signature& signature,
                      const std::map<std::string, int64_t>& operators,
                      const std::vector<std::string>& notes) {
  std::printf("program      %s, from %s (format version %u)\n", program.name.c_str(),
              signature.format.c_str(), isa::kFormatVersion);
  PrintPorts("input", signature.inputs);
  PrintPorts("output", signature.outputs);
  if (!signature.batch.empty())
    std::printf("batch        %s, requests %s\n", signature.batch.c_str(),
                signature.rows_are_independent ? "share launches" : "are answered one by one");
  for (const ranking::Lookup& lookup : signature.prologue)
    std::printf("lookup       %s, %zu keys, %lld buckets\n", lookup.input.c_str(),
                lookup.keys.size(), static_cast<long long>(lookup.buckets));
  for (const ranking::Port& port : signature.inputs)
    if (!port.id_policy.empty())
      std::printf("feature      %s names rows of tables; out of range: %s\n", port.name.c_str(),
                  port.id_policy.c_str());
  int64_t values = 0, bytes = 0, tables = 0;
  std::map<std::string, int> instructions;
  for (const isa::Buffer& buffer : program.buffers) {
    if (buffer.kind != isa::BufferKind::kWeight) continue;
    const int64_t size = isa::BufferBytes(buffer, buffer.rows.size);
    values += buffer.rows.size * buffer.cols;
    bytes += size;
    if (buffer.form != isa::Form::kTable) continue;
    tables += size;
    std::printf("table        %s, %lld rows of %lld %s\n", buffer.name.c_str(),
                static_cast<long long>(buffer.rows.size), static_cast<long long>(buffer.cols),
                Name(buffer.dtype));
  }
  std::printf("parameters   %lld, %s as packed, of which %s of embedding tables\n",
              static_cast<long long>(values), FormatSize(bytes).c_str(),
              FormatSize(tables).c_str());
  for (const isa::Register& reg : program.registers)
    if (reg.formula.empty())
      std::printf("register     %s, up to %lld\n", reg.name.c_str(),
                  static_cast<long long>(reg.max));
  if (!operators.empty()) {
    std::printf("operators   ");
    for (const auto& [op, count] : operators)
      std::printf(" %s %lld", op.c_str(), static_cast<long long>(count));
    std::printf("\n");
  }
  for (const auto& stream : program.streams)
    for (const isa::Instruction& in : stream) ++instructions[isa::Info(in.op).name];
  std::printf("instructions");
  for (const auto& [op, count] : instructions) std::printf(" %s %d", op.c_str(), count);
  std::printf("\n");
  for (const std::string& note : notes) std::printf("note         %s\n", note.c_str());
}

Result<void> InspectTensors(const Flags& flags) {
  const std::filesystem::path path = flags.model;
  if (isa::IsPackage(path)) {
    TRY_ASSIGN(const isa::Package package, isa::ReadPackage(path, {}));
    if (flags.graph)
      return Fail(ErrorCode::kUnsupported, flags.model + " is compiled: it holds no graph");
    if (flags.disassemble) {
      std::fputs(isa::Print(package.program).c_str(), stdout);
      return {};
    }
    TRY_ASSIGN(const Json json, ParseJson(package.texts.at(ranking::kSignatureText)));
    TRY_ASSIGN(const ranking::Signature signature, ranking::SignatureFromJson(json));
    PrintTensorModel(package.program, signature, {}, {});
    return {};
  }
  TRY_ASSIGN(const TensorLoadOptions options, ToTensorLoadOptions(flags.tensor, flags.shared));
  TRY_ASSIGN(const ImportedTensorModel model, ImportTensorModel(path, options));
  if (flags.graph) {
    std::fputs(model.graph_text.c_str(), stdout);
  } else if (flags.disassemble) {
    std::fputs(isa::Print(model.compiled.program).c_str(), stdout);
  } else {
    PrintTensorModel(model.compiled.program, model.signature, model.operators, model.notes);
  }
  return {};
}

Result<void> Inspect(const Flags& flags) {
  if (IsTensorModelPath(flags.model)) return InspectTensors(flags);
  if (flags.graph) {
    TRY_ASSIGN(const LoadOptions options, ToLoadOptions(flags.shared));
    TRY_ASSIGN(const std::string text, GraphText(flags.model, options));
    std::fputs(text.c_str(), stdout);
    return {};
  }
  TRY_ASSIGN(const Subject subject, Open(flags));
  if (flags.disassemble)
    std::fputs(isa::Print(subject.program).c_str(), stdout);
  else
    PrintSummary(subject);
  return {};
}

}  // namespace

Command AddInspect(CLI::App& app) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "inspect", "Show what is in a compiled model, or what a model would compile to");
  command
      ->add_option(
          "model", flags->model,
          "Compiled file, model folder, GGUF, ONNX or .pt2 file, SavedModel, config.json, or a "
          "published model's name (qwen3-0.6b ... qwen3-235b-a22b)")
      ->required();
  command->add_flag("--disassemble", flags->disassemble, "Print the Program's text form");
  command->add_flag("--graph", flags->graph,
                    "Print the graph that a model folder, config.json or name is compiled from");
  AddCompileFlags(*command, flags->shared);
  AddTensorFlags(*command, flags->tensor);
  return [flags] { return Inspect(*flags); };
}

}  // namespace millpower::cli
