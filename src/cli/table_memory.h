// --table-memory: a bound of what embedding tables keep resident.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "base/page_keeper.h"
#include "base/result.h"
#include "isa/package.h"

namespace millpower::cli {

void AddTableMemoryFlag(CLI::App& command, std::string& value);

// Null for "auto", which leaves it to the system. Errors: kInvalidArgument, with the flag as param
// (no size, or one too small to be kept: at least 1 GiB); kUnsupported.
Result<std::shared_ptr<PageKeeper>> StartTableKeeper(const std::string& value);

// Lets `keeper`, if there is one, keep the tables that are mapped.
void KeepTables(const std::shared_ptr<PageKeeper>& keeper, isa::BoundWeights& weights);

// In Prometheus' text form.
std::string TableMetricsText(const PageKeeper& keeper);

}  // namespace millpower::cli
