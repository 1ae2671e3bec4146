// What attributes of tensor operators may say: those of the graph (ir/graph.h) and of the
// instructions they become (isa/opcodes.h). The values are part of the encoding of Programs.
#pragma once

#include <cstdint>

namespace millpower {

enum class Reduction : uint8_t {
  kSum,
  kMean,
  kProduct,
  kMax,
  kMin,
  kArgMax,
  kArgMin,  // the first of equals; one axis
  kLastArgMax,
  kLastArgMin,  // the last of equals
  kAny,
  kAll,  // of bool
};
inline constexpr int kReductionCount = 11;
enum class Pooling : uint8_t { kMax, kAverage, kSum, kArgMax };
inline constexpr int kPoolingCount = 4;
enum class Bag : uint8_t { kSum, kMean, kMax };
inline constexpr int kBagCount = 3;
enum class ScatterMode : uint8_t {
  kElements,  // index and updates of x's rank: as kTakeAlong reads, along `axis`
  kNd,        // index [..., depth]: as kGatherNd reads, without batch dimensions
};
enum class Scattering : uint8_t { kSet, kAdd, kMul, kMax, kMin };
inline constexpr int kScatteringCount = 5;
// What an index outside [0, n) does.
enum class IndexPolicy : uint8_t {
  kError,    // the launch fails, naming the instruction and the index
  kWrap,     // [-n, 0) counts from the end; else as kError
  kClamp,    // the nearest that is inside
  kDefault,  // kEmbeddingBag: the row `default_row`; -1: a row of zeros
};
inline constexpr int kIndexPolicyCount = 4;

}  // namespace millpower
