// What the load generator makes of the requests it sent.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"

namespace millpower::bench {

// One request, times in seconds since the run began. When `error` is not empty only that, `status`
// and `start_s` mean anything.
struct Outcome {
  std::string error{};
  int status = 0;            // of HTTP; 0: no answer
  double start_s = 0;        // before connecting
  double first_token_s = 0;  // the first piece of output was here
  double last_token_s = 0;   // and the last
  double end_s = 0;          // the stream had ended
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t output_tokens = 0;     // as the server counts them; pieces, from a server that does not
  std::vector<double> gaps_s{};  // between one piece and the next

  double TimeToFirstToken() const { return first_token_s - start_s; }
  // Mean time of a token after the first. Of one token: 0, and it is not counted.
  double TimePerOutputToken() const {
    return output_tokens > 1
               ? (last_token_s - first_token_s) / static_cast<double>(output_tokens - 1)
               : 0;
  }
};

// The smallest value that at least `share` of all are not above (nearest rank); 0 of none.
double Quantile(std::vector<double> values, double share);

// {"median": ..., "p90": ..., "p99": ..., "max": ..., "mean": ...}; nulls of no values.
Json Spread(const std::vector<double>& values);

// Requests, failures (and the first of their errors), tokens, throughput from the first request's
// start to the last one's end, and the spread of ttft_s, tpot_s, gap_s and latency_s.
Json Summarise(const std::vector<Outcome>& outcomes);

}  // namespace millpower::bench
