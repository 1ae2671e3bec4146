// The instruction set as data. One table says of every opcode its operands and attributes; encode,
// decode, print, parse, verify, the CPU's executor and docs/isa are all checked against it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/result.h"

namespace millpower::isa {

struct Program;
struct Instruction;
class Sizes;

enum class Opcode : uint8_t {
  kEnd = 0,
  kWait = 1,
  kPost = 2,
  kGather = 3,
  kRmsNorm = 4,
  kMatMul = 5,
  kRopeTable = 6,
  kRope = 7,
  kKvAppend = 8,
  kAttention = 9,
  kSample = 10,
  kQuantise = 11,
  kRoute = 12,
  kExpertMatMul = 13,
  kCombine = 14,
  // On tensors of any rank (Operand::shape), for imported models.
  kMap = 15,
  kReduce = 16,
  kCopy = 17,
  kContract = 18,
  kConv = 19,
  kPool = 20,
  kTake = 21,
  kTakeAlong = 22,
  kGatherNd = 23,
  kScatter = 24,
  kEmbeddingBag = 25,
  kSoftmax = 26,
  kLayerNorm = 27,
  kTopK = 28,
  kCumulate = 29,
  // Between the ranks that run a Program together.
  kCollective = 30,
};
inline constexpr int kOpcodeCount = 31;
inline constexpr int kMaxOperands = 9;
inline constexpr int kMaxAttributes = 7;

enum class Stream : uint8_t {
  kCompute = 0,   // matrix and vector engines
  kTransfer = 1,  // loads, gathers, stores to HBM
  kLink = 2,      // to other chips
};
inline constexpr int kStreamCount = 3;
const char* Name(Stream stream);

enum class Access : uint8_t { kRead, kWrite, kReadWrite };

struct OperandInfo {
  const char* name;
  Access access;
  bool optional = false;
};

enum class AttributeType : uint8_t {
  kInteger,
  kReal,
  kEpilogue,
  kCollective,
  kList,   // index into Program::lists
  kCode,   // index into Program::lists, of an encoded Expression (base/expression.h)
  kSizes,  // index into Program::shapes: sizes, which may be registers
};

struct AttributeInfo {
  const char* name;
  AttributeType type;
};

struct OpInfo {
  Opcode op;
  const char* name;
  const char* summary;  // one line, as docs/isa/README.md lists it
  std::span<const OperandInfo> operands;
  std::span<const AttributeInfo> attributes;
  // What the table cannot say: which shapes, formats and values fit together. Operands are known
  // to exist and to lie inside their buffers. One of the two: the second is that of instructions on
  // tensors, whose operands may have a shape.
  Result<void> (*check)(const Program&, const Instruction&) = nullptr;
  Result<void> (*check_tensors)(const Sizes&, const Instruction&) = nullptr;

  bool takes_tensors() const { return check_tensors != nullptr; }
};

// Entry of `op`; op < kOpcodeCount.
const OpInfo& Info(Opcode op);
std::optional<Opcode> OpcodeFromName(std::string_view name);

// Epilogues of matmul, as its attribute holds them; kernels/kernels.h has their arithmetic.
// kSiluMul takes the gate, computed before, as its residual operand: for gate and up weights that
// differ in type. expert_matmul knows kNone and kSiluGate.
enum class Epilogue : uint8_t { kNone = 0, kAdd = 1, kSiluGate = 2, kSiluMul = 3, kRelu = 4 };
inline constexpr int kEpilogueCount = 5;
const char* Name(Epilogue epilogue);

// Kinds of collective, as its attribute holds them; docs/isa/collective.md has their arithmetic.
enum class Collective : uint8_t {
  kAllReduce = 0,
  kAllGather = 1,
  kReduceScatter = 2,
  kAllToAll = 3
};
inline constexpr int kCollectiveCount = 4;
const char* Name(Collective kind);

// Positions of operands and attributes in the table.
namespace sync {
enum { kSemaphore, kCount };
}
namespace gather {
enum { kTable, kIndex, kY };
}
namespace rms_norm {
enum { kX, kWeight, kY };
enum { kGroup, kEpsilon };
}  // namespace rms_norm
namespace matmul {
enum { kX, kW, kBias, kResidual, kY };
enum { kEpilogue };
}  // namespace matmul
namespace rope_table {
enum { kPositions, kInvFreq, kTable };
enum { kScale };
}  // namespace rope_table
namespace rope {
enum { kX, kTable };
enum { kHeads };
}  // namespace rope
namespace kv_append {
enum { kK, kV, kSequences, kPages, kKv };
}
namespace attention {
enum { kQ, kSequences, kPages, kKv, kOut };
// A row sees the last `window` positions, its own included; 0: all.
enum { kHeads, kScale, kWindow };
}  // namespace attention
namespace sample {
enum { kLogits, kParams, kAdjustTokens, kAdjustments, kRecord };
}
namespace quantise {
enum { kX, kY };
}
namespace route {
enum { kLogits, kList, kWeights };
enum { kNormalise };
}  // namespace route
namespace expert_matmul {
enum { kX, kW, kList, kY };
enum { kEpilogue };
}  // namespace expert_matmul
namespace combine {
enum { kX, kWeights, kResidual, kY };
}

// Columns of a work list row (`sequences`): one run of consecutive rows of one sequence.
enum SequenceColumn : int {
  kRowBegin = 0,       // first row of the launch that belongs to the sequence
  kRowCount = 1,       // >= 1
  kFirstPosition = 2,  // position of that row in the sequence
  kPageBegin = 3,      // where the sequence's pages begin in `pages`
  kSequenceColumns = 4,
};

// Values of kind, mode, reduction and policy are those of base/tensor_ops.h.
namespace map {
enum { kX0 = 0, kY = 8 };  // up to eight operands, absent ones last
enum { kCode, kSizes };
}  // namespace map
namespace reduce {
enum { kX, kY };
enum { kKind, kAxes };
}  // namespace reduce
// For every i below `window`: y[at + gap * i] = x[c], where c[perm[d]] = begin[perm[d]] +
// step[perm[d]] * i[d]. begin and step are by axis of x; a step of 0 repeats one element. x and y
// have one rank and one type. What lies outside of the window in y stays as it was.
namespace copy {
enum { kX, kY };
enum { kPerm, kBegin, kStep, kWindow, kAt, kGap };
}  // namespace copy
namespace contract {
enum { kA, kB, kY };
enum { kTransposeA, kTransposeB };
}  // namespace contract
namespace conv {
enum { kX, kW, kBias, kY };
enum { kStrides, kPadsBegin, kPadsEnd, kDilations, kGroups };
}  // namespace conv
namespace pool {
enum { kX, kY };
enum { kKind, kKernel, kStrides, kPadsBegin, kPadsEnd, kDilations, kCountPadding };
}  // namespace pool
namespace take {
enum { kX, kIndex, kY };
enum { kAxis, kPolicy };
}  // namespace take
namespace take_along {
enum { kX, kIndex, kY };
enum { kAxis, kPolicy };
}  // namespace take_along
namespace gather_nd {
enum { kX, kIndex, kY };
enum { kBatchDims, kPolicy };
}  // namespace gather_nd
namespace scatter {
enum { kIndex, kUpdates, kY };  // y holds x before, and is changed in place
enum { kMode, kAxis, kReduction, kPolicy };
}  // namespace scatter
namespace embedding_bag {
enum { kTable, kIndex, kOffsets, kWeights, kY };
enum { kMode, kEnds, kPolicy, kDefaultRow, kPaddingRow };
}  // namespace embedding_bag
namespace softmax {
enum { kX, kY };
enum { kLog };
}  // namespace softmax
namespace layer_norm {
enum { kX, kWeight, kBias, kY };
enum { kEpsilon };
}  // namespace layer_norm
namespace top_k {
enum { kX, kY };
enum { kLargest };  // k is y's last dimension
}  // namespace top_k
namespace cumulate {
enum { kX, kY };
enum { kKind, kAxis, kExclusive, kReverse };
}  // namespace cumulate
namespace collective {
enum { kX, kResidual, kY };
enum { kKind };
}  // namespace collective

}  // namespace millpower::isa
