// Work that goes once through rows or elements: norms, rotations, element-wise expressions, copies,
// reductions, gathers, pooled gathers, sampling. What it takes is moving bytes and computing on
// vectors, on all cores at once.
#pragma once

#include <cstdint>

#include "device/chip/description.h"
#include "device/chip/work.h"

namespace millpower::device::chip {

// Bytes and operations of the whole instruction.
struct RowTraffic {
  double read = 0;          // computed before: in the last-level cache if they fit, else in memory
  double written = 0;       // likewise
  double constants = 0;     // read from memory, in order
  double random_reads = 0;  // times that a run of bytes somewhere in memory is read ...
  double random_bytes = 0;  // ... and the bytes of each
  double cached_share = 0;  // of random reads, those the last-level cache has
  double near_share = 0;    // ... and those a core's own cache has: counted on the host alone
  double state_read = 0;    // of KV pages, from memory
  double state_written = 0;
  double vector_ops = 0;   // f32 operations
  double special_ops = 0;  // exponentials, roots, divisions, sines
  double matrix_ops =
      0;  // products of two computed matrices (contract, conv); a multiply-add is two
  DType matrix_type = DType::kBf16;
  double gathered = 0;      // runs of elements that an index picks one by one, of what is read
  bool on_tensors = false;  // of any rank: shapes and strides are worked out at every launch
  double rows = 1;          // independent parts: fewer than cores leave cores idle
};

// One wave:
//   memory  (constants + state + what does not fit the cache) / (bandwidth · efficiency)
//           + random_reads · (1 − cached_share) · ceil(random_bytes / access) · access
//             / (bandwidth · random efficiency)
//   cache   (read + written + random bytes) / cache bandwidth
//   vector  vector_ops / rate + special_ops / special rate, over cores · min(1, rows / cores)
//   matrix  matrix_ops / (rate · efficiency), over the same cores
//   latency one access to memory, or to the cache if nothing comes from memory
// `joins`: part of the kernel before: no issue, no latency, and `read` is where it was computed.
Work RowWork(const Chip& chip, const RowTraffic& traffic, bool joins);

}  // namespace millpower::device::chip
