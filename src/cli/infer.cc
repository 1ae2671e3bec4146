// millpower infer MODEL --input NAME=x.npy ... --output DIR
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <mutex>

#include "base/clock.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/npy.h"
#include "cli/session.h"
#include "cli/tensor_flags.h"
#include "cli/tensor_loader.h"
#include "ranking/engine.h"

namespace millpower::cli {
namespace {

struct Flags {
  std::string model, output;
  std::vector<std::string> inputs;
  bool fixed_shapes = false, json = false;
  int repeat = 1;
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

Result<ranking::Answer> Ask(ranking::Engine& engine, const ranking::ModelPtr& model,
                            ranking::Request request) {
  std::mutex mutex;
  std::condition_variable done;
  std::optional<Result<ranking::Answer>> answer;
  TRY(engine.Submit(model, std::move(request), [&](Result<ranking::Answer> got) {
    const std::lock_guard lock(mutex);
    answer = std::move(got);
    done.notify_one();
  }));
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return answer.has_value(); });
  return *std::move(answer);
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
  TRY_ASSIGN(LoadedTensorModel loaded, LoadTensorModel(flags.model, options));
  if (!flags.fixed_shapes) TRY(read_inputs());

  SessionOptions session;
  session.load.threads = options.threads;
  session.kernels = flags.shared.kernels;
  TRY_ASSIGN(const std::shared_ptr<device::Device> device, MakeDevice(session));
  const SystemClock clock;
  ranking::Engine engine(*device, clock);
  TRY_ASSIGN(const ranking::ModelPtr model, engine.Load({.name = loaded.name,
                                                         .program = loaded.program,
                                                         .weights = std::move(loaded.weights),
                                                         .signature = loaded.signature,
                                                         .config = {.warm_up = false}}));
  ranking::Answer answer;
  std::vector<int64_t> times_ns;
  for (int i = 0; i < flags.repeat; ++i) {
    TRY_ASSIGN(ranking::Request request, MakeRequest(loaded.signature, arrays));
    const int64_t start = clock.NowNs();
    TRY_ASSIGN(answer, Ask(engine, model, std::move(request)));
    times_ns.push_back(clock.NowNs() - start);
  }
  TRY(Report(flags, loaded.signature, answer, times_ns));
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
  command->add_flag("--json", flags->json, "Report as JSON");
  AddTensorFlags(*command, flags->tensor);
  AddDeviceFlags(*command, flags->shared);
  return [flags] { return Infer(*flags); };
}

}  // namespace millpower::cli
