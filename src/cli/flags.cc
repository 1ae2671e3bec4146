#include <cstdlib>
#include <span>
#include <string_view>

#include "base/mapped_file.h"
#include "base/system.h"
#include "cli/commands.h"

namespace millpower::cli {
namespace {

// Our words for types of numbers, and what they stand for: groups of 32 that share a scale.
struct TypeName {
  std::string_view name;
  DType type;
};
constexpr TypeName kWeightTypes[] = {{"f32", DType::kF32},
                                     {"bf16", DType::kBf16},
                                     {"int8", DType::kQ8_0},
                                     {"int4", DType::kQ4_0},
                                     {"fp8", DType::kF8E4M3}};
constexpr TypeName kKvTypes[] = {
    {"f32", DType::kF32}, {"bf16", DType::kBf16}, {"int8", DType::kI8}, {"fp8", DType::kF8E4M3}};

// A name may come from elsewhere than a flag that checks it.
Result<DType> TypeOf(const char* flag, const std::string& name, std::span<const TypeName> types) {
  for (const TypeName& type : types)
    if (type.name == name) return type.type;
  return Fail(ErrorCode::kInvalidArgument,
              "--" + std::string(flag) + " '" + name + "' is not a type", flag);
}

}  // namespace

void AddCompileFlags(CLI::App& command, ModelFlags& flags) {
  command
      .add_option("--weights", flags.weights,
                  "Type of matrix weights: auto (the file's), f32, bf16, int8, int4 or fp8")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "int8", "int4", "fp8"}))
      ->capture_default_str();
  command
      .add_option("--kv", flags.kv, "Type of the KV cache: f32, bf16 (the default), int8 or fp8")
      ->check(CLI::IsMember({"f32", "bf16", "int8", "fp8"}));
  command.add_option("--chat-format", flags.chat_format,
                     "Chat format, for a model whose template is not known: qwen3, "
                     "qwen3-instruct-2507, qwen3-thinking-2507 or chatml");
}

void AddDeviceFlags(CLI::App& command, ModelFlags& flags) {
  command
      .add_option("--threads", flags.threads,
                  "Threads that compute; 0: all processors we may use, cgroup limits respected")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command
      .add_option("--kernels", flags.kernels,
                  "Kernel set: auto, avx512vnni, avx512, avx2 or scalar")
      ->check(CLI::IsMember({"auto", "avx512vnni", "avx512", "avx2", "scalar"}))
      ->capture_default_str();
}

void AddTraceFlag(CLI::App& command, std::string& path) {
  command.add_option("--trace", path,
                     "Write when each thread worked on which instruction, in Chrome's trace format "
                     "(ui.perfetto.dev); simulate --trace writes what a described chip would do");
}

Result<std::unique_ptr<device::TraceFile>> OpenTrace(const std::string& path) {
  if (path.empty()) return nullptr;
  return device::TraceFile::Open(path);
}

Result<LoadOptions> ToLoadOptions(const ModelFlags& flags) {
  LoadOptions options;
  if (flags.weights != "auto") {
    TRY_ASSIGN(options.compile.weight_type, TypeOf("weights", flags.weights, kWeightTypes));
  }
  if (!flags.kv.empty()) {
    TRY_ASSIGN(options.compile.kv_type, TypeOf("kv", flags.kv, kKvTypes));
  }
  if (!flags.chat_format.empty()) {
    TRY_ASSIGN(options.chat_format, text::ChatFormatFromName(flags.chat_format));
  }
  options.threads = ThreadCount(flags);
  return options;
}

Result<std::string> ReadAdminKey(const std::string& key_file) {
  constexpr size_t kKeyMaxBytes = 4096;
  constexpr const char* kBlank = " \t\r\n";
  const char* variable = std::getenv("MILLPOWER_ADMIN_KEY");
  if (key_file.empty()) return std::string(variable != nullptr ? variable : "");
  TRY_ASSIGN(std::string key, ReadFile(key_file, kKeyMaxBytes));
  key.erase(key.find_last_not_of(kBlank) + 1);
  key.erase(0, key.find_first_not_of(kBlank));
  if (key.empty())
    return Fail(ErrorCode::kInvalidArgument, key_file + " holds no key", "admin-key-file");
  return key;
}

int ThreadCount(const ModelFlags& flags) {
  return flags.threads > 0 ? flags.threads : UsableCpuCount();
}

}  // namespace millpower::cli
