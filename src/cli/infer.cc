// millpower infer MODEL --input NAME=x.npy ... --output DIR
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/npy.h"
#include "cli/table_memory.h"
#include "cli/tensor_flags.h"
#include "cli/tensor_session.h"

namespace millpower::cli {
namespace {

struct Flags {
  std::string model, output, trace;
  std::vector<std::string> inputs;
  bool fixed_shapes = false, json = false, profile = false;
  int repeat = 1;
  std::string table_memory = "auto";
  TensorFlags tensor;
  ModelFlags shared;
};

struct NamedArray {
  std::string name;
  NpyArray array;
};

// NAME=FILE; a name may hold '='.
Result<NamedArray> ReadInput(const std::string& word) {
  const size_t equals = word.rfind('=');
  if (equals == std::string::npos || equals == 0)
    return Fail(ErrorCode::kInvalidArgument, "--input '" + word + "' is not NAME=FILE.npy");
  NamedArray named{word.substr(0, equals), {}};
  TRY_ASSIGN(named.array, ReadNpy(word.substr(equals + 1)));
  return named;
}

Result<ranking::Request> MakeRequest(const ranking::Signature& signature,
                                     const std::vector<NamedArray>& arrays) {
  ranking::Request request;
  request.inputs.resize(signature.inputs.size());
  std::vector<bool> given(signature.inputs.size(), false);
  for (const NamedArray& named : arrays) {
    const int at = signature.FindInput(named.name);
    if (at < 0) {
      std::string names;
      for (const ranking::Port& port : signature.inputs)
        names += (names.empty() ? "" : ", ") + port.name;
      return Fail(ErrorCode::kInvalidArgument,
                  "the model has no input '" + named.name + "'; it has: " + names);
    }
    const ranking::Port& port = signature.inputs[static_cast<size_t>(at)];
    const bool same_bits = port.dtype == DType::kBf16 && named.array.dtype == DType::kU16;
    if (port.is_string != named.array.is_string ||
        (!port.is_string && named.array.dtype != port.dtype && !same_bits))
      return Fail(ErrorCode::kInvalidArgument,
                  "input '" + named.name + "' takes " +
                      (port.is_string ? "strings" : Name(port.dtype)) + ", the file has " +
                      (named.array.is_string ? "strings" : Name(named.array.dtype)));
    ranking::InputTensor& input = request.inputs[static_cast<size_t>(at)];
    input.shape = named.array.shape;
    input.bytes = named.array.bytes;
    for (const std::string& text : named.array.strings) input.strings.push_back(text);
    given[static_cast<size_t>(at)] = true;
  }
  for (size_t i = 0; i < given.size(); ++i)
    if (!given[i])
      return Fail(ErrorCode::kInvalidArgument,
                  "input '" + signature.inputs[i].name + "' is missing");
  return request;
}

std::string FileName(const std::string& output) {
  std::string name;
  for (const char c : output) {
    const bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '_' || c == '.' || c == '-';
    name += fine ? c : '_';
  }
  return name + ".npy";
}

int64_t Median(std::vector<int64_t> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

// Time of one run, in the order of cost: by opcode, then the instructions that take most.
void PrintProfile(const std::vector<device::cpu::Profile::Line>& lines, int runs) {
  constexpr size_t kInstructions = 12;
  struct Sum {
    int64_t instructions = 0, ns = 0;
  };
  std::map<isa::Opcode, Sum> sums;
  int64_t total_ns = 0;
  for (const auto& line : lines) {
    sums[line.op].instructions += line.runs > 0 ? 1 : 0;
    sums[line.op].ns += line.ns;
    total_ns += line.ns;
  }
  const auto print = [&](const std::string& count, int64_t ns, const std::string& what) {
    std::printf("%12s %10.1f us %5.1f%%  %s\n", count.c_str(), static_cast<double>(ns) / 1e3 / runs,
                100 * static_cast<double>(ns) / static_cast<double>(std::max<int64_t>(1, total_ns)),
                what.c_str());
  };
  std::vector<std::pair<isa::Opcode, Sum>> opcodes(sums.begin(), sums.end());
  std::ranges::sort(opcodes, std::greater(), [](const auto& each) { return each.second.ns; });
  std::printf("instructions, time of a run (mean), share, opcode\n");
  for (const auto& [op, sum] : opcodes)
    if (sum.ns > 0) print(std::to_string(sum.instructions), sum.ns, isa::Info(op).name);
  std::vector<device::cpu::Profile::Line> most = lines;
  std::ranges::sort(most, std::greater(), &device::cpu::Profile::Line::ns);
  most.resize(std::min(most.size(), kInstructions));
  for (const auto& line : most)
    if (line.ns > 0)
      print("", line.ns, std::string(isa::Info(line.op).name) + " -> " + line.writes);
}

// Writes the outputs, and says on standard output what they are and how long it took.
Result<void> Report(const Flags& flags, const ranking::Signature& signature,
                    const ranking::Answer& answer, const std::vector<int64_t>& times_ns) {
  if (!flags.output.empty()) {
    std::error_code error;
    std::filesystem::create_directories(flags.output, error);
    if (error) return Fail(ErrorCode::kIo, flags.output + ": " + error.message());
  }
  const double median_us = static_cast<double>(Median(times_ns)) / 1e3;
  Json report = {{"outputs", Json::array()}, {"runs", times_ns.size()}, {"median_us", median_us}};
  for (size_t i = 0; i < answer.outputs.size(); ++i) {
    const ranking::Port& port = signature.outputs[i];
    const ranking::OutputTensor& output = answer.outputs[i];
    Json entry = {{"name", port.name}, {"dtype", Name(port.dtype)}, {"shape", output.shape}};
    std::string line =
        fmt::format("{} {} [{}]", port.name, Name(port.dtype), fmt::join(output.shape, ", "));
    if (!flags.output.empty()) {
      const std::filesystem::path path = std::filesystem::path(flags.output) / FileName(port.name);
      TRY(WriteNpy(path, port.dtype, output.shape, output.bytes));
      line += " -> " + path.string();
      entry["file"] = path.string();
    }
    report["outputs"].push_back(std::move(entry));
    if (!flags.json) std::printf("%s\n", line.c_str());
  }
  if (flags.json) {
    std::printf("%s\n", DumpJson(report).c_str());
  } else if (flags.repeat > 1) {
    std::printf("median of %zu runs: %.1f us\n", times_ns.size(), median_us);
  }
  return {};
}

Result<void> Infer(const Flags& flags) {
  TRY_ASSIGN(TensorLoadOptions options, ToTensorLoadOptions(flags.tensor, flags.shared));
  TRY_ASSIGN(const std::shared_ptr<PageKeeper> keeper, StartTableKeeper(flags.table_memory));
  std::vector<NamedArray> arrays;
  const auto read_inputs = [&]() -> Result<void> {
    for (const std::string& word : flags.inputs) {
      TRY_ASSIGN(arrays.emplace_back(), ReadInput(word));
    }
    return {};
  };
  // What is wrong with the model is told before what is wrong with its inputs.
  if (flags.fixed_shapes) TRY(read_inputs());
  for (const NamedArray& named : arrays)
    options.import.input_shapes[named.name] = named.array.shape;
  device::cpu::Profile profile;
  TRY_ASSIGN(const std::unique_ptr<device::TraceFile> trace, OpenTrace(flags.trace));
  TRY_ASSIGN(TensorSession session,
             TensorSession::Start(flags.model, {.load = std::move(options),
                                                .kernels = flags.shared.kernels,
                                                .warm_up = false,
                                                .keeper = keeper,
                                                .profile = flags.profile ? &profile : nullptr,
                                                .trace = trace.get()}));
  if (!flags.fixed_shapes) TRY(read_inputs());
  ranking::Answer answer;
  std::vector<int64_t> times_ns;
  for (int i = 0; i < flags.repeat; ++i) {
    TRY_ASSIGN(ranking::Request request, MakeRequest(session.signature(), arrays));
    const int64_t start = session.clock().NowNs();
    TRY_ASSIGN(answer, session.Ask(std::move(request)));
    times_ns.push_back(session.clock().NowNs() - start);
  }
  if (trace) TRY(trace->Close());
  TRY(Report(flags, session.signature(), answer, times_ns));
  if (flags.profile) PrintProfile(profile.Lines(), flags.repeat);
  return {};
}

}  // namespace

Command AddInfer(CLI::App& app) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "infer", "Run an ONNX, PyTorch (.pt2) or TensorFlow (SavedModel) model once on .npy files");
  command
      ->add_option("model", flags->model,
                   ".onnx or .pt2 file, SavedModel folder, or a compiled file of one")
      ->required();
  command->add_option("-i,--input", flags->inputs, "An input, as NAME=FILE.npy; once for each");
  command->add_option(
      "-o,--output", flags->output,
      "Folder for the outputs, NAME.npy each; without it only their shapes are told");
  command->add_flag("--fixed-shapes", flags->fixed_shapes,
                    "Import the model for exactly the shapes of the given inputs");
  command->add_option("--repeat", flags->repeat, "Run it so many times")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  CLI::Option* profile = command->add_flag(
      "--profile", flags->profile, "Say which instructions the time goes to, on the first thread");
  command->add_flag("--json", flags->json, "Report as JSON")->excludes(profile);
  AddTensorFlags(*command, flags->tensor);
  AddTraceFlag(*command, flags->trace);
  AddTableMemoryFlag(*command, flags->table_memory);
  AddDeviceFlags(*command, flags->shared);
  return [flags] { return Infer(*flags); };
}

}  // namespace millpower::cli
