// A TOML file with the same settings as a subcommand's flags, by their long names:
//
//   model = "models/demo"
//   port = 8080
//   kv-memory = "2GiB"      # "_" and "-" are the same
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>

#include "base/result.h"

namespace millpower::cli {

// Gives the file's values to `command`'s options that were not given on the command line (a flag
// overrides the file) and checks them as flags are checked. Call from the command's own function,
// after the command line has been parsed. Errors: kNotFound; kInvalidArgument with file and line
// for TOML that does not parse, a setting there is no flag for, and a value that its flag refuses.
Result<void> ApplyConfig(CLI::App& command, const std::filesystem::path& path);

}  // namespace millpower::cli
