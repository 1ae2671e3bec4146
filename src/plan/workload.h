// What is asked of a server that does not exist: requests with their times and lengths.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"

namespace millpower::plan {

struct Arrival {
  double at_s = 0;            // since the beginning
  int32_t input = 0;          // tokens of the prompt; candidates of a recommender's query
  int32_t output = 0;         // tokens to generate; 0 of a query
  int32_t prefix_group = -1;  // requests of a group begin with the same tokens ...
  int32_t prefix_tokens = 0;  // ... so many
};

// Either a number of users each of whom sends the next request when the last is answered, or
// requests that come when they come.
struct Workload {
  int32_t concurrency = 0;        // of the closed loop; 0: open, by at_s
  std::vector<Arrival> requests;  // ascending at_s; a closed loop takes them in order
};

// `count` equal requests. `concurrency` users.
Workload ClosedLoop(int32_t concurrency, int64_t count, int32_t input, int32_t output);

// `count` equal requests with exponentially distributed gaps, `rate` a second on average.
Workload PoissonArrivals(double rate, int64_t count, int32_t input, int32_t output, uint64_t seed);

// A CSV file with a header: at_s, input, output and, if it has them, prefix_group, prefix_tokens.
// Errors: kInvalidArgument, naming line and column.
Result<Workload> ReadTrace(const std::filesystem::path& path);
// Of queries to a recommender: at_s, items. Errors: likewise.
Result<Workload> ReadQueries(const std::filesystem::path& path);

// What one of `replicas` gets of a load: of an open one every replicas-th request in the order in
// which they arrive (round robin); of a closed loop every replicas-th user, with that user's
// requests, so that each replica's load is its own.
Workload ShareOf(const Workload& workload, int replica, int replicas);

}  // namespace millpower::plan
