// How the CPU device (cpu/) shares an instruction among its threads, as far as its cost model
// (chip/cost_host.h) must know, too.
#pragma once

#include <cstdint>

#include "isa/program.h"

namespace millpower::device {

// Floats that an instruction must touch before it is worth waking the other threads. A core goes
// through so many in some 10 us; meeting the others takes about one, but a time slice of the
// scheduler's when the machine is busy with something else, which a small model cannot hide.
inline constexpr int64_t kSerialFloats = 1 << 17;

// Rows of one sequence that attention and kv_append take at a time: enough to reuse each key, few
// enough to keep threads busy.
inline constexpr int64_t kRunRows = 32;

// Output channels of a product that a thread takes at a time: one of the kernels' panels.
inline constexpr int64_t kPanelChannels = 64;

// Bytes of all weights that the Program multiplies with, each once.
double MatMulWeightBytes(const isa::Program& program);

// Whether so many bytes of weights are still in the caches when the next launch comes.
bool StayCached(double weight_bytes);

// How many parts the rows of a product are cut into, each of which reads the weight again; a thread
// then takes channels of a part. With weights that stay cached every thread has rows of its own as
// soon as they keep a kernel busy, and finds them in its cache from one product to the next: what
// another core wrote comes slowly (exchange_s of chip/cost_host.h). With others only very many rows
// make up for it; some rows, where a narrow weight has too few panels for all threads.
int64_t ProductParts(int64_t threads, int64_t rows, int64_t panels, bool stay_cached);

}  // namespace millpower::device
