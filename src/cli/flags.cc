#include "base/system.h"
#include "cli/commands.h"

namespace millpower::cli {

void AddCompileFlags(CLI::App& command, ModelFlags& flags) {
  command
      .add_option("--weights", flags.weights,
                  "Type of matrix weights: auto (the file's), f32 or bf16")
      ->check(CLI::IsMember({"auto", "f32", "bf16"}))
      ->capture_default_str();
  command.add_option("--kv", flags.kv, "Type of the KV cache: f32 or bf16 (the default)")
      ->check(CLI::IsMember({"f32", "bf16"}));
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
  command.add_option("--kernels", flags.kernels, "Kernel set: auto, avx512, avx2 or scalar")
      ->check(CLI::IsMember({"auto", "avx512", "avx2", "scalar"}))
      ->capture_default_str();
}

Result<LoadOptions> ToLoadOptions(const ModelFlags& flags) {
  LoadOptions options;
  if (flags.weights != "auto") options.compile.weight_type = DTypeFromName(flags.weights);
  options.compile.kv_type = DTypeFromName(flags.kv);
  if (!flags.chat_format.empty()) {
    TRY_ASSIGN(options.chat_format, text::ChatFormatFromName(flags.chat_format));
  }
  options.threads = ThreadCount(flags);
  return options;
}

int ThreadCount(const ModelFlags& flags) {
  return flags.threads > 0 ? flags.threads : UsableCpuCount();
}

}  // namespace millpower::cli
