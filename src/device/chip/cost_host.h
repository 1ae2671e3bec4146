// How long instructions take on the machine that the CPU device (cpu/) runs on: its description is
// measured by `millpower probe`, and has the constants [fitted.host], [fitted.host_weights] and
// [fitted.host_tables].
// docs/chip.md has the formulas and how far they are off.
//
// All threads work on one instruction after the other, whatever its stream: each is one wave that
// keeps Unit::kVector, which stands for the threads, busy all along, so that streams never overlap.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/dtype.h"
#include "device/chip/cost_attention.h"
#include "device/chip/cost_experts.h"
#include "device/chip/cost_matmul.h"
#include "device/chip/cost_rows.h"
#include "device/chip/description.h"
#include "device/chip/work.h"

namespace millpower::device::chip {

inline constexpr char kHostKind[] = "host";
inline constexpr char kHostWeightsKind[] = "host_weights";
inline constexpr char kHostTablesKind[] = "host_tables";

// Whether a chip is such a machine: it has [fitted.host].
bool IsHost(const Chip& chip);

// [fitted.host]
struct HostConstants {
  double meet_s;                // threads that meet over an instruction they share, and its issue
  double thread_share;          // of what all threads compute, what one alone does: 1/threads, or
                                // up to 1 where threads share a core
  double thread_memory_share;   // of what all get from memory
  double overlap_power;         // how sharply the slower of computing and loading decides
  double memory_power;          // and of both and memory
  double attention_efficiency;  // of the rate of products
  double segment_s;  // of attention, a query and a segment of 256 positions: softmax, sums
  double append_s;   // a key's or value's number that is put into its page
  double contract_efficiency;  // of the rate of products, of two computed matrices
  double tensor_s;             // an instruction on tensors, besides its issue: shapes and strides
  double finish_steps;  // a sum of a product is finished and stored in as long as so many steps
  double exchange_s;    // a byte of rows that another thread has written, until a thread has it

  // [fitted.host_tables], by all threads
  double bag_s;   // a pooled bag, its rows at hand
  double item_s;  // a row of a bag, or what an index picks, likewise
  double far_s;   // a row that comes from the last-level cache rather than a thread's own
  double miss_s;  // a row that comes from memory, besides its bytes

  explicit HostConstants(const Chip& chip);
};

// [fitted.host_weights], of one type of weights.
struct HostWeights {
  double load_rows;   // a weight that is loaded and widened takes as long as so many rows of it
  double efficiency;  // of the matrix rate, with many rows

  HostWeights(const Chip& chip, DType type);
};

// V = channels * steps values of a weight, channels being whole lines of 16 in panels of B <= 4
// lines, m = 1 / (rate * efficiency) seconds for a row of one.
//   load      V m load_rows * tiles of rows
//   compute   (V max(rows, 8 tiles / B) + channels * finish_steps * rows) m: of fewer sums than a
//             core begins before the first is done, each step waits for the one before it
//   memory    bytes of what the caches do not hold / bandwidth
//   exchange  bytes of rows * exchange_s (threads - 1) / threads: what the other threads wrote
//   total     ((load^p + compute^p)^(q/p) + memory^q)^(1/q) + exchange + meet_s,
//             p = overlap_power, q = memory_power
// Where threads have rows of their own (host_sharing.h), each loads the weight for its rows, and
// there is no exchange. One thread alone, where there is little to do: load and compute over
// thread_share, memory over thread_memory_share, issue_s instead of meet_s, no exchange. Panels of
// 64 channels that do not divide among the threads end with fewer of these at work.
Work HostMatMulWork(const Chip& chip, const MatMulShape& shape);

// The sum of the experts' products.
Work HostExpertMatMulWork(const Chip& chip, const ExpertShape& shape,
                          std::span<const int64_t> rows_of_expert);

// Keys and values are weights of as many rows as queries share them, of 24 at a time; beside the
// products segment_s for each query and segment that it sees. Memory is read once for each
// sequence.
Work HostAttentionWork(const Chip& chip, const AttentionShape& shape,
                       std::span<const QueryRun> runs);

// `rows` of `sequences` that take about as many each.
Work HostKvAppendWork(const Chip& chip, const AttentionShape& shape, int64_t rows,
                      int64_t sequences);

// As products, load being bytes that caches hold, and rows here and there besides; bytes at the
// rate of the smallest memory that holds all of them.
Work HostRowWork(const Chip& chip, const RowTraffic& traffic);

}  // namespace millpower::device::chip
