// millpower: an open AI inference cloud, from the chip up. One short file per subcommand in cli/.
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <exception>

#include "cli/commands.h"

namespace {

int Main(int argc, char** argv) {
  // Results go to standard output; the log, like errors, to standard error.
  spdlog::set_default_logger(spdlog::stderr_color_mt("millpower"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %^%l%$ %v");

  CLI::App app("Millpower runs and rents AI inference without NVIDIA hardware or software.",
               "millpower");
  app.set_version_flag("--version", "millpower " MILLPOWER_VERSION);
  app.require_subcommand(1);
  app.footer("'millpower COMMAND --help' tells a command's flags. Documentation: docs/.");
  millpower::cli::Command chosen;
  auto add = [&](millpower::cli::Command (*add_command)(CLI::App&)) {
    millpower::cli::Command run = add_command(app);
    app.get_subcommands({}).back()->callback([&chosen, run] { chosen = run; });
  };
  add(millpower::cli::AddServe);
  add(millpower::cli::AddRun);
  add(millpower::cli::AddCompile);
  add(millpower::cli::AddInspect);
  add(millpower::cli::AddBench);
  add(millpower::cli::AddAdmin);
  add(millpower::cli::AddPerplexity);
  add(millpower::cli::AddInfer);
  add(millpower::cli::AddWorker);
  add(millpower::cli::AddSimulate);
  add(millpower::cli::AddCompare);
  add(millpower::cli::AddProbe);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const millpower::Result<void> done = chosen();
  if (done) return 0;
  std::fprintf(stderr, "millpower: error: %s\n", done.error().message.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Main(argc, argv);
  } catch (const std::exception& error) {  // out of memory, or a fault of a library
    std::fprintf(stderr, "millpower: error: %s\n", error.what());
    return 1;
  }
}
