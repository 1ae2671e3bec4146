// What /metrics says of the ranking engine.
#pragma once

#include <string>

#include "ranking/engine.h"

namespace millpower::serve {

// In Prometheus' text form; names begin with "millpower_ranking_".
std::string RankingMetricsText(const ranking::Engine& engine);

}  // namespace millpower::serve
