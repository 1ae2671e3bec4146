// A Program: what the chip runs. A few in-order streams of coarse instructions over declared
// buffers, ordered across streams only by counting semaphores, with registers for the sizes of a
// launch. It fixes mathematics - operators, shapes, number formats, reduction orders, streams and
// dependencies - and nothing about tiles, cores or where a buffer lives: those are the device's.
//
// Immutable once built; safe to share between threads. Bytes that come from outside are decoded by
// Decode (encoding.h) and proven by Verify (verify.h) before anything runs them.
#pragma once

#include <array>
#include <bit>
#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "isa/layout.h"
#include "isa/opcodes.h"

namespace millpower::isa {

// A size known only at launch, with the bound that everything is sized and proven against. One
// set at load (the number of KV pages a device has room for) does not change between launches. One
// with a formula is not set: the device computes it from earlier registers at every launch.
struct Register {
  std::string name;
  int64_t max = 0;
  bool at_load = false;
  // Empty, or a Size (base/size.h) in the names of earlier registers without formula that are set
  // at launch, e.g. "26*batch", in its canonical text. It is monotone, its value at their bounds is
  // `max`, and no other register has it. Such a register may be named by its formula; any other
  // name is of letters, digits, '_', '.' and '-', as all registers' are.
  std::string formula = {};
  bool operator==(const Register&) const = default;
};

// A row count or a dimension: a constant, or a register.
struct Dim {
  int32_t reg = -1;  // index into Program::registers, or -1
  int64_t size = 0;  // of a constant
  auto operator<=>(const Dim&) const = default;
};

enum class BufferKind : uint8_t {
  kInput,    // written by the host before a launch
  kWeight,   // constant, bound at load
  kKv,       // mutable state that outlives launches
  kScratch,  // dead between launches
  kOutput,   // read by the host after a launch
};
inline constexpr int kBufferKindCount = 5;
const char* Name(BufferKind kind);

enum class Form : uint8_t {
  kRows,       // row-major [rows, cols]
  kPacked,     // a weight of `rows` output channels and `cols` reduction steps (layout.h)
  kPages,      // `rows` KV pages of `heads` heads of `cols` channels (layout.h)
  kQuantised,  // `rows` rows of `cols` activations in i8 or f8_e4m3, with scales (layout.h)
  kTable,      // a weight of `rows` rows of an embedding table (layout.h), the only form of weight
               // that may change between launches
  kExperts,    // who works on what: `rows` rows choosing `cols` of `heads` experts (layout.h)
};
inline constexpr int kFormCount = 6;
const char* Name(Form form);

struct Buffer {
  std::string name{};  // unique; letters, digits, '_', '.', '-'
  BufferKind kind = BufferKind::kScratch;
  Form form = Form::kRows;
  DType dtype = DType::kF32;
  Dim rows{};
  int64_t cols = 0;
  int64_t heads = 0;  // of kPages; the experts of kExperts; else 0
  // Of an input of indices: the host's values are checked to lie in [0, bound) at every launch.
  bool has_bound = false;
  Dim bound{};
  bool operator==(const Buffer&) const = default;
};

inline constexpr int32_t kNoBuffer = -1;

// Of tensors, and sizes that an attribute may name.
inline constexpr int kMaxTensorRank = 8;
inline constexpr int kMaxSizes = 64;

// Columns [begin, begin + cols) of all rows of a buffer. Forms other than kRows are always
// whole. An operand of an instruction on tensors is such a matrix, too, unless it has a shape: then
// it is the whole buffer, its elements in order, as a tensor of that shape (which has exactly as
// many elements, whatever the registers).
struct Operand {
  int32_t buffer = kNoBuffer;
  int64_t begin = 0;
  int64_t cols = 0;
  int32_t shape = -1;  // index into Program::shapes
  bool present() const { return buffer != kNoBuffer; }
  bool operator==(const Operand&) const = default;
};

struct Instruction {
  Opcode op = Opcode::kEnd;
  // In the order of the op's table entry (opcodes.h); the rest stays empty.
  std::array<Operand, kMaxOperands> operands{};
  std::array<int64_t, kMaxAttributes> attributes{};  // reals as the bits of a float64
  bool operator==(const Instruction&) const = default;

  const Operand& operand(int index) const { return operands[static_cast<size_t>(index)]; }
  int64_t integer(int index) const { return attributes[static_cast<size_t>(index)]; }
  double real(int index) const {
    return std::bit_cast<double>(attributes[static_cast<size_t>(index)]);
  }
};

// Chips that run one Program together, at most.
inline constexpr int32_t kMaxRanks = 1024;
// The register that says which of them one is.
inline constexpr char kRankRegister[] = "rank";

struct Program {
  std::string name;
  std::map<std::string, int64_t> facts;  // e.g. "max_positions"; meaning is the engine's
  std::vector<Register> registers;
  int32_t semaphores = 0;
  // How many chips run it together, each with weights and memory of its own, exchanging rows by
  // collectives. With more than one, each knows its number, 0 .. ranks - 1, by a register
  // kRankRegister that is set at load.
  int32_t ranks = 1;
  std::vector<Buffer> buffers;
  // Shapes of operands, and sizes that attributes name; lists that attributes name. Each stands in
  // the order in which instructions first use it, once (Canonicalise).
  std::vector<std::vector<Dim>> shapes;
  std::vector<std::vector<int64_t>> lists;
  std::array<std::vector<Instruction>, kStreamCount> streams;
  bool operator==(const Program&) const = default;

  const Buffer& buffer(const Operand& operand) const {
    return buffers[static_cast<size_t>(operand.buffer)];
  }
  // Upper bound of a row count.
  int64_t Max(const Dim& dim) const {
    return dim.reg < 0 ? dim.size : registers[static_cast<size_t>(dim.reg)].max;
  }
  // Index by name; -1 when there is none.
  int32_t FindBuffer(std::string_view name) const;
  int32_t FindRegister(std::string_view name) const;
  int64_t FactOr(const std::string& fact, int64_t otherwise) const;
};

// Indices of `program.shapes` and `program.lists` in the order in which instructions first use
// them: stream by stream, the operands of each instruction and then its attributes. Entries out of
// range are passed over; one used again stands once.
struct TableOrder {
  std::vector<int64_t> shapes;
  std::vector<int64_t> lists;
};
TableOrder OrderOfUse(const Program& program);

// Puts shapes and lists in the order of their first use, equal ones once and unused ones not at
// all, as Verify demands and Parse leaves them, so that equal Programs compare equal. For whoever
// builds a Program; indices out of range become -1.
void Canonicalise(Program& program);

// Bytes of a buffer with `rows` rows (channels, pages).
int64_t BufferBytes(const Buffer& buffer, int64_t rows);

}  // namespace millpower::isa
