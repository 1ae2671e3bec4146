#include "isa/verify.h"

#include <algorithm>
#include <set>
#include <string>

#include "isa/encoding.h"
#include "isa/order.h"
#include "isa/sizes.h"

namespace millpower::isa {
namespace {

// Larger than any model we know, small enough that products of two stay far from overflow, as does
// the sum of all buffers: 2^16 of 2^46 bytes are 2^62.
constexpr size_t kMaxRegisters = 1024;
constexpr size_t kMaxBuffers = 1 << 16;
constexpr size_t kMaxInstructions = 1 << 20;
constexpr int32_t kMaxSemaphores = 4096;
constexpr size_t kMaxTableEntries = 1 << 18;
constexpr int64_t kMaxLaunchRows = int64_t{1} << 24;
constexpr int64_t kMaxCols = int64_t{1} << 31;
constexpr int64_t kMaxBufferBytes = int64_t{1} << 46;

std::unexpected<Error> Corrupt(std::string message) {
  return Fail(ErrorCode::kCorrupt, std::move(message));
}

constexpr size_t kMaxNameBytes = 256;

bool IsName(const std::string& name) {
  if (name.empty() || name.size() > kMaxNameBytes) return false;
  for (const char c : name)
    if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '_' &&
        c != '.' && c != '-')
      return false;
  return true;
}

// A register's name could otherwise be taken for a constant in the text form.
bool IsRegisterName(const std::string& name) {
  return IsName(name) && !(name[0] >= '0' && name[0] <= '9') && name[0] != '-';
}

bool IsDim(const Program& program, const Dim& dim) {
  if (dim.reg >= 0) return static_cast<size_t>(dim.reg) < program.registers.size() && dim.size == 0;
  return dim.reg == -1 && dim.size >= 1 && dim.size <= kMaxRows;
}

Result<void> CheckRegisters(const Program& program) {
  if (program.registers.size() > kMaxRegisters) return Corrupt("more than 1024 registers");
  std::set<std::string> names;
  for (const Register& reg : program.registers) {
    const bool is_formula = !reg.formula.empty() && reg.name == reg.formula;
    if ((!is_formula && !IsRegisterName(reg.name)) || reg.name.size() > kMaxNameBytes ||
        !names.insert(reg.name).second)
      return Corrupt("register name '" + reg.name + "' is malformed or taken");
    // Devices reserve memory for the largest launch; only what is set at load, or a product of
    // several registers, may be larger.
    const bool is_set = !reg.at_load && reg.formula.empty();
    if (reg.max < 1 || reg.max > (is_set ? kMaxLaunchRows : kMaxRows))
      return Corrupt("register '" + reg.name + "' has a bound outside 1.." +
                     (is_set ? "2^24" : "2^31"));
  }
  return {};
}

// Ranks that are more than one know which they are. No size is that number: it may be 0.
Result<void> CheckRanks(const Program& program) {
  if (program.ranks < 1 || program.ranks > kMaxRanks) return Corrupt("ranks are not in 1..1024");
  const int32_t rank = program.FindRegister(kRankRegister);
  if (program.ranks == 1) return {};
  if (rank < 0) return Corrupt("a Program of several ranks has no register 'rank'");
  const Register& reg = program.registers[static_cast<size_t>(rank)];
  if (!reg.at_load || reg.max != program.ranks - 1)
    return Corrupt("register 'rank' is not set at load, below the number of ranks");
  const auto names_rank = [rank](const Dim& dim) { return dim.reg == rank; };
  bool is_size = false;
  for (const Buffer& buffer : program.buffers)
    is_size |= names_rank(buffer.rows) || (buffer.has_bound && names_rank(buffer.bound));
  for (const std::vector<Dim>& shape : program.shapes)
    is_size |= std::ranges::any_of(shape, names_rank);
  if (is_size) return Corrupt("register 'rank' is no size");
  return {};
}

// Which number formats a form may hold.
bool FitsForm(Form form, DType type) {
  switch (form) {
    case Form::kRows:
      return IsElementType(type);
    case Form::kTable:
      return type == DType::kF32 || type == DType::kBf16 || type == DType::kF16 ||
             type == DType::kI8 || type == DType::kI4;
    case Form::kPacked:
      return type == DType::kF32 || type == DType::kBf16 || IsQuantisedType(type);
    case Form::kPages:
      return type == DType::kF32 || type == DType::kBf16 || type == DType::kI8 ||
             type == DType::kF8E4M3;
    case Form::kQuantised:
      return type == DType::kI8 || type == DType::kF8E4M3;
    case Form::kExperts:
      return type == DType::kI32;
  }
  return false;
}

Result<void> CheckForm(const Program& program, const Buffer& buffer) {
  if (!FitsForm(buffer.form, buffer.dtype))
    return Corrupt(std::string(Name(buffer.form)) + " cannot hold " + Name(buffer.dtype));
  const bool pages = buffer.form == Form::kPages;
  const bool experts = buffer.form == Form::kExperts;
  if (pages != (buffer.kind == BufferKind::kKv)) return Corrupt("pages and kv go together");
  if (pages && (buffer.heads < 1 || buffer.heads > 4096 || buffer.cols > kMaxHeadDim ||
                buffer.cols % std::max<int64_t>(2, StepsPerLine(buffer.dtype)) != 0))
    return Corrupt(
        "KV heads are not 1..4096 of a width up to 512, even, in 8 bits a multiple of 4");
  if (experts && (buffer.heads < 1 || buffer.heads > kMaxExperts || buffer.cols > kMaxChoices ||
                  buffer.cols > buffer.heads))
    return Corrupt("an expert list chooses 1..32 of 1..1024 experts");
  if (!pages && !experts && buffer.heads != 0) return Corrupt("only pages and lists have heads");
  if ((experts || buffer.form == Form::kQuantised) && buffer.kind != BufferKind::kScratch)
    return Corrupt("quantised rows and expert lists are scratch");
  if (buffer.form == Form::kPacked && buffer.kind != BufferKind::kWeight)
    return Corrupt("a packed buffer is a weight");
  if (buffer.kind == BufferKind::kWeight && buffer.rows.reg >= 0)
    return Corrupt("a weight has a constant size");
  if (buffer.form == Form::kTable && buffer.kind != BufferKind::kWeight)
    return Corrupt("an embedding table is a weight");
  if (buffer.kind == BufferKind::kInput && buffer.form != Form::kRows)
    return Corrupt("inputs are rows");
  const bool is_index = buffer.dtype == DType::kI32 || buffer.dtype == DType::kI64;
  if (buffer.has_bound &&
      (buffer.kind != BufferKind::kInput || !is_index || !IsDim(program, buffer.bound)))
    return Corrupt("only inputs of i32 or i64 have bounds, of a constant or a register");
  return {};
}

Result<void> CheckBuffer(const Program& program, const Buffer& buffer) {
  if (!IsDim(program, buffer.rows)) return Corrupt("rows are neither a register nor 1..2^31");
  if (buffer.cols < 1 || buffer.cols > kMaxCols) return Corrupt("columns are not in 1..2^31");
  TRY(CheckForm(program, buffer));
  // First roughly, so that computing the bytes does not overflow: at most 8 for a column, though a
  // chunk of a block type is longer than short rows are, and expert lists add a header.
  const int64_t rows = program.Max(buffer.rows);
  const int64_t heads = buffer.form == Form::kPages ? buffer.heads : 1;
  if (buffer.cols + 256 > 2 * kMaxBufferBytes / rows / heads ||
      BufferBytes(buffer, rows) > kMaxBufferBytes)
    return Corrupt("is larger than 2^46 bytes");
  return {};
}

// Pages outlive launches, so that their number is settled before the first.
Result<void> CheckKvSizes(const Program& program) {
  for (const Buffer& buffer : program.buffers)
    if (buffer.kind == BufferKind::kKv && buffer.rows.reg >= 0 &&
        !program.registers[static_cast<size_t>(buffer.rows.reg)].at_load)
      return Corrupt("buffer '" + buffer.name +
                     "': the number of KV pages is neither constant nor set at load");
  return {};
}

// A tensor is a whole buffer of rows, with as many elements whatever the registers.
Result<void> CheckShape(const Sizes& sizes, const OpInfo& op, const Operand& operand) {
  const Program& program = sizes.program();
  const Buffer& buffer = program.buffer(operand);
  if (!op.takes_tensors()) return Corrupt("has a shape, which its opcode does not take");
  if (operand.shape < 0 || static_cast<size_t>(operand.shape) >= program.shapes.size())
    return Corrupt("has a shape that is not declared");
  if (buffer.form != Form::kRows || operand.begin != 0 || operand.cols != buffer.cols)
    return Corrupt("has a shape, and is not a whole buffer of rows");
  for (const Dim& dim : program.shapes[static_cast<size_t>(operand.shape)])
    if (dim.reg < 0 && dim.size < 1) return Corrupt("has a dimension of 0");
  const std::optional<Size> elements = sizes.OfDim(buffer.rows).Times(buffer.cols);
  if (!elements || elements != sizes.ElementsOf(operand.shape))
    return Corrupt("has a shape of other than " + buffer.name + "'s elements");
  return {};
}

Result<void> CheckOperand(const Sizes& sizes, const OpInfo& op, const OperandInfo& info,
                          const Operand& operand) {
  const Program& program = sizes.program();
  const std::string what = std::string("operand ") + info.name;
  if (!operand.present()) {
    if (info.optional && operand == Operand{}) return {};
    return Corrupt(what + " is missing");
  }
  if (operand.buffer < 0 || static_cast<size_t>(operand.buffer) >= program.buffers.size())
    return Corrupt(what + " names a buffer that is not declared");
  const Buffer& buffer = program.buffer(operand);
  if (operand.begin < 0 || operand.cols < 1 || operand.begin > buffer.cols ||
      operand.cols > buffer.cols - operand.begin)
    return Corrupt(what + " lies outside buffer '" + buffer.name + "'");
  if (buffer.form != Form::kRows && operand.cols != buffer.cols)
    return Corrupt(what + " takes a part of '" + buffer.name + "', which has no parts");
  if (info.access != Access::kRead &&
      (buffer.kind == BufferKind::kWeight || buffer.kind == BufferKind::kInput))
    return Corrupt(what + " writes '" + buffer.name + "', which is constant");
  if (operand.shape == -1) return {};
  const auto checked = CheckShape(sizes, op, operand);
  return checked ? checked : Corrupt(what + " " + checked.error().message);
}

// An operand may be written where another is read, but only in the same columns: then an element is
// read for the last time when it is written.
Result<void> CheckOverlaps(const OpInfo& info, const Instruction& instruction) {
  for (size_t i = 0; i < info.operands.size(); ++i) {
    const Operand& written = instruction.operands[i];
    if (!written.present() || info.operands[i].access == Access::kRead) continue;
    for (size_t j = 0; j < info.operands.size(); ++j) {
      const Operand& other = instruction.operands[j];
      if (i == j || other.buffer != written.buffer || other == written) continue;
      if (other.begin < written.begin + written.cols && written.begin < other.begin + other.cols)
        return Corrupt(std::string("operands ") + info.operands[j].name + " and " +
                       info.operands[i].name + " overlap in part");
    }
  }
  return {};
}

Result<void> CheckAttribute(const Program& program, const AttributeInfo& info, int64_t value) {
  size_t count = 0;  // of what the attribute numbers
  switch (info.type) {
    case AttributeType::kInteger:
    case AttributeType::kReal:
      return {};
    case AttributeType::kEpilogue:
      count = kEpilogueCount;
      break;
    case AttributeType::kCollective:
      count = kCollectiveCount;
      break;
    case AttributeType::kList:
    case AttributeType::kCode:
      count = program.lists.size();
      break;
    case AttributeType::kSizes:
      count = program.shapes.size();
      break;
  }
  if (value >= 0 && static_cast<size_t>(value) < count) return {};
  return Corrupt(std::string(info.name) + " " + std::to_string(value) + " does not exist");
}

Result<void> CheckInstruction(const Sizes& sizes, const Instruction& instruction) {
  const Program& program = sizes.program();
  const OpInfo& info = Info(instruction.op);
  for (size_t i = 0; i < kMaxOperands; ++i) {
    if (i < info.operands.size()) {
      TRY(CheckOperand(sizes, info, info.operands[i], instruction.operands[i]));
    } else if (instruction.operands[i] != Operand{}) {
      return Corrupt("has more operands than its opcode");
    }
  }
  TRY(CheckOverlaps(info, instruction));
  for (size_t i = 0; i < info.attributes.size(); ++i)
    TRY(CheckAttribute(program, info.attributes[i], instruction.attributes[i]));
  return info.takes_tensors() ? info.check_tensors(sizes, instruction)
                              : info.check(program, instruction);
}

// One Program has one set of tables: each entry once, in the order of first use, and none unused.
template <typename Entry>
Result<void> CheckTable(const std::vector<Entry>& table, const std::vector<int64_t>& order,
                        const char* what) {
  for (size_t i = 0; i < table.size(); ++i)
    if (i >= order.size() || order[i] != static_cast<int64_t>(i))
      return Corrupt(std::string(what) + " are not in the order of their first use");
  if (std::set<Entry>(table.begin(), table.end()).size() != table.size())
    return Corrupt(std::string("two ") + what + " are equal");
  return {};
}

}  // namespace

Result<void> Verify(const Program& program) {
  if (!IsName(program.name)) return Corrupt("the program's name is malformed");
  if (program.semaphores < 0 || program.semaphores > kMaxSemaphores)
    return Corrupt("semaphore count is not in 0..4096");
  for (const auto& [fact, value] : program.facts)
    if (!IsName(fact)) return Corrupt("fact name '" + fact + "' is malformed");
  TRY(CheckRegisters(program));
  TRY(CheckRanks(program));
  if (program.buffers.size() > kMaxBuffers) return Corrupt("more than 2^16 buffers");
  std::set<std::string> names;
  for (const Buffer& buffer : program.buffers) {
    if (!IsName(buffer.name) || !names.insert(buffer.name).second)
      return Corrupt("buffer name '" + buffer.name + "' is malformed or taken");
    if (const auto checked = CheckBuffer(program, buffer); !checked)
      return FailAt("buffer '" + buffer.name + "'", checked.error());
  }
  if (program.shapes.size() > kMaxTableEntries || program.lists.size() > kMaxTableEntries)
    return Corrupt("more than 2^18 shapes or lists");
  TRY_ASSIGN(const Sizes sizes, Sizes::Make(program));
  const TableOrder order = OrderOfUse(program);
  TRY(CheckTable(program.shapes, order.shapes, "shapes"));
  TRY(CheckTable(program.lists, order.lists, "lists"));
  for (int s = 0; s < kStreamCount; ++s) {
    const auto& stream = program.streams[static_cast<size_t>(s)];
    const std::string name = Name(static_cast<Stream>(s));
    if (stream.size() > kMaxInstructions) return Corrupt(name + ": more than 2^20 instructions");
    for (size_t i = 0; i < stream.size(); ++i) {
      const auto checked = CheckInstruction(sizes, stream[i]);
      if (!checked)
        return FailAt(name + "[" + std::to_string(i) + "] " + Info(stream[i].op).name,
                      checked.error());
      if (stream[i].op == Opcode::kCollective && static_cast<Stream>(s) != Stream::kLink)
        return Corrupt(name + "[" + std::to_string(i) +
                       "] collective: collectives stand in the link stream");
      if ((stream[i].op == Opcode::kEnd) != (i + 1 == stream.size()))
        return Corrupt("stream " + name + " does not end with its only 'end'");
    }
    if (stream.empty()) return Corrupt("stream " + name + " has no 'end'");
  }
  TRY(CheckKvSizes(program));
  return CheckOrder(program);
}

}  // namespace millpower::isa
