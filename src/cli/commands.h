// The subcommands of `millpower`, one file each. Each adds itself to the command line; the function
// it returns runs it and gives the process's exit code: 0, 1 for an error that was printed.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "base/result.h"
#include "cli/loader.h"
#include "device/trace.h"

namespace millpower::cli {

using Command = std::function<Result<void>()>;

Command AddServe(CLI::App& app);
Command AddRun(CLI::App& app);
Command AddCompile(CLI::App& app);
Command AddInspect(CLI::App& app);
Command AddBench(CLI::App& app);
Command AddAdmin(CLI::App& app);
Command AddPerplexity(CLI::App& app);
Command AddInfer(CLI::App& app);
Command AddWorker(CLI::App& app);
Command AddSimulate(CLI::App& app);
Command AddCompare(CLI::App& app);
Command AddProbe(CLI::App& app);

// Flags that several subcommands share, as they were given.
struct ModelFlags {
  std::string weights = "auto";
  std::string kv;  // empty: bf16, or what a compiled file has
  std::string chat_format;
  std::string kernels = "auto";
  int threads = 0;
};
// --weights, --kv, --chat-format
void AddCompileFlags(CLI::App& command, ModelFlags& flags);
// --threads, --kernels
void AddDeviceFlags(CLI::App& command, ModelFlags& flags);
// --trace
void AddTraceFlag(CLI::App& command, std::string& path);
// Null for an empty path. Errors: kIo.
Result<std::unique_ptr<device::TraceFile>> OpenTrace(const std::string& path);
Result<LoadOptions> ToLoadOptions(const ModelFlags& flags);
// --threads, or as many as we may use.
int ThreadCount(const ModelFlags& flags);

// The key of the admin API: what is in the file, or in MILLPOWER_ADMIN_KEY without one; "" if
// neither is given. Errors: kNotFound, kInvalidArgument (an empty file).
Result<std::string> ReadAdminKey(const std::string& key_file);

}  // namespace millpower::cli
