#include "isa/encoding.h"

#include "isa/bytes.h"

namespace millpower::isa {
namespace {

constexpr uint32_t kProgramMagic = 0x4752504d;  // "MPRG"
constexpr size_t kMaxNameBytes = 512;
// Of anything. An instruction takes many times its encoded bytes once decoded, so that a long file
// of short ones must not be decoded before Verify refuses it.
constexpr size_t kMaxItems = 1 << 20;

// A count of items of at least `item_bytes` each.
Result<size_t> GetCount(ByteReader& in, size_t item_bytes) {
  const size_t count = in.GetCount(item_bytes);
  if (count <= kMaxItems) return count;
  return Fail(ErrorCode::kCorrupt, "Program claims " + std::to_string(count) + " of something");
}

Result<bool> GetFlag(ByteReader& in) {
  const int flag = in.Get<uint8_t>();
  if (flag <= 1) return flag == 1;
  return Fail(ErrorCode::kCorrupt, "a flag is " + std::to_string(flag) + ", not 0 or 1");
}

void Put(ByteWriter& out, const Dim& dim) {
  out.Put(dim.reg);
  out.Put(dim.size);
}

Dim GetDim(ByteReader& in) {
  Dim dim;
  dim.reg = in.Get<int32_t>();
  dim.size = in.Get<int64_t>();
  return dim;
}

void Put(ByteWriter& out, int64_t value) { out.Put(value); }

// A list of lists.
template <typename Item>
void PutTable(ByteWriter& out, const std::vector<std::vector<Item>>& table) {
  out.Put(static_cast<uint32_t>(table.size()));
  for (const std::vector<Item>& entry : table) {
    out.Put(static_cast<uint32_t>(entry.size()));
    for (const Item& item : entry) Put(out, item);
  }
}

template <typename Item>
Result<void> GetTable(ByteReader& in, size_t item_bytes, Item (*get)(ByteReader&),
                      std::vector<std::vector<Item>>& table) {
  TRY_ASSIGN(const size_t entries, GetCount(in, 4));
  for (size_t left = entries; left > 0 && in.ok(); --left) {
    TRY_ASSIGN(const size_t items, GetCount(in, item_bytes));
    std::vector<Item>& entry = table.emplace_back();
    entry.reserve(items);
    for (size_t i = 0; i < items; ++i) entry.push_back(get(in));
  }
  return {};
}

void Put(ByteWriter& out, const Buffer& buffer) {
  out.Put(buffer.name);
  out.Put(buffer.kind);
  out.Put(buffer.form);
  out.Put(buffer.dtype);
  Put(out, buffer.rows);
  out.Put(buffer.cols);
  out.Put(buffer.heads);
  out.Put(static_cast<uint8_t>(buffer.has_bound));
  if (buffer.has_bound) Put(out, buffer.bound);
}

Result<Buffer> GetBuffer(ByteReader& in) {
  Buffer buffer;
  buffer.name = in.GetString(kMaxNameBytes);
  const int kind = in.Get<uint8_t>();
  const int form = in.Get<uint8_t>();
  const int dtype = in.Get<uint8_t>();
  if (kind >= kBufferKindCount || form >= kFormCount || dtype >= kDTypeCount)
    return Fail(ErrorCode::kCorrupt, "buffer '" + buffer.name + "' has an unknown kind or type");
  buffer.kind = static_cast<BufferKind>(kind);
  buffer.form = static_cast<Form>(form);
  buffer.dtype = static_cast<DType>(dtype);
  buffer.rows = GetDim(in);
  buffer.cols = in.Get<int64_t>();
  buffer.heads = in.Get<int64_t>();
  TRY_ASSIGN(buffer.has_bound, GetFlag(in));
  if (buffer.has_bound) buffer.bound = GetDim(in);
  return buffer;
}

void Put(ByteWriter& out, const Instruction& instruction) {
  out.Put(instruction.op);
  const OpInfo& info = Info(instruction.op);
  for (size_t i = 0; i < info.operands.size(); ++i) {
    const Operand& operand = instruction.operands[i];
    out.Put(operand.buffer);
    if (!operand.present()) continue;
    out.Put(operand.begin);
    out.Put(operand.cols);
    out.Put(operand.shape);
  }
  for (size_t i = 0; i < info.attributes.size(); ++i) out.Put(instruction.attributes[i]);
}

Result<Instruction> GetInstruction(ByteReader& in) {
  Instruction instruction;
  const int op = in.Get<uint8_t>();
  if (op >= kOpcodeCount)
    return Fail(ErrorCode::kCorrupt, "opcode " + std::to_string(op) + " does not exist");
  instruction.op = static_cast<Opcode>(op);
  const OpInfo& info = Info(instruction.op);
  for (size_t i = 0; i < info.operands.size(); ++i) {
    Operand& operand = instruction.operands[i];
    operand.buffer = in.Get<int32_t>();
    if (!operand.present()) continue;
    operand.begin = in.Get<int64_t>();
    operand.cols = in.Get<int64_t>();
    operand.shape = in.Get<int32_t>();
  }
  for (size_t i = 0; i < info.attributes.size(); ++i) instruction.attributes[i] = in.Get<int64_t>();
  return instruction;
}

}  // namespace

std::vector<std::byte> Encode(const Program& program) {
  ByteWriter out;
  out.Put(kProgramMagic);
  out.Put(kFormatVersion);
  out.Put(program.name);
  out.Put(static_cast<uint32_t>(program.facts.size()));
  for (const auto& [fact, value] : program.facts) {
    out.Put(fact);
    out.Put(value);
  }
  out.Put(static_cast<uint32_t>(program.registers.size()));
  for (const Register& reg : program.registers) {
    out.Put(reg.name);
    out.Put(reg.max);
    out.Put(static_cast<uint8_t>(reg.at_load));
    out.Put(reg.formula);
  }
  out.Put(program.semaphores);
  out.Put(program.ranks);
  out.Put(static_cast<uint32_t>(program.buffers.size()));
  for (const Buffer& buffer : program.buffers) Put(out, buffer);
  PutTable(out, program.shapes);
  PutTable(out, program.lists);
  for (const auto& stream : program.streams) {
    out.Put(static_cast<uint32_t>(stream.size()));
    for (const Instruction& instruction : stream) Put(out, instruction);
  }
  return out.Take();
}

Result<Program> Decode(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  if (in.Get<uint32_t>() != kProgramMagic || !in.ok())
    return Fail(ErrorCode::kCorrupt, "not a Program: it does not begin with MPRG");
  if (const uint32_t version = in.Get<uint32_t>(); version != kFormatVersion)
    return Fail(ErrorCode::kUnsupported, "Program format version " + std::to_string(version) +
                                             "; this build reads version " +
                                             std::to_string(kFormatVersion));
  Program program;
  program.name = in.GetString(kMaxNameBytes);
  TRY_ASSIGN(const size_t facts, GetCount(in, 12));
  for (size_t left = facts; left > 0 && in.ok(); --left) {
    std::string fact = in.GetString(kMaxNameBytes);
    if (!program.facts.empty() && fact <= program.facts.rbegin()->first)
      return Fail(ErrorCode::kCorrupt, "facts are not in the order of their names");
    program.facts[std::move(fact)] = in.Get<int64_t>();
  }
  TRY_ASSIGN(const size_t registers, GetCount(in, 17));
  for (size_t left = registers; left > 0 && in.ok(); --left) {
    Register reg;
    reg.name = in.GetString(kMaxNameBytes);
    reg.max = in.Get<int64_t>();
    TRY_ASSIGN(reg.at_load, GetFlag(in));
    reg.formula = in.GetString(kMaxNameBytes);
    program.registers.push_back(std::move(reg));
  }
  program.semaphores = in.Get<int32_t>();
  program.ranks = in.Get<int32_t>();
  TRY_ASSIGN(const size_t buffers, GetCount(in, 36));
  for (size_t left = buffers; left > 0 && in.ok(); --left) {
    TRY_ASSIGN(Buffer buffer, GetBuffer(in));
    program.buffers.push_back(std::move(buffer));
  }
  TRY(GetTable<Dim>(in, 12, GetDim, program.shapes));
  TRY(GetTable<int64_t>(
      in, 8, [](ByteReader& bytes) { return bytes.Get<int64_t>(); }, program.lists));
  for (auto& stream : program.streams) {
    TRY_ASSIGN(const size_t instructions, GetCount(in, 1));
    for (size_t left = instructions; left > 0 && in.ok(); --left) {
      TRY_ASSIGN(Instruction instruction, GetInstruction(in));
      // An `end` is one byte here, and hundreds once decoded.
      if (instruction.op == Opcode::kEnd && left > 1)
        return Fail(ErrorCode::kCorrupt, "a stream goes on after its 'end'");
      stream.push_back(instruction);
    }
  }
  if (!in.ok()) return Fail(ErrorCode::kCorrupt, "Program is truncated");
  if (in.left() != 0)
    return Fail(ErrorCode::kCorrupt,
                "Program is followed by " + std::to_string(in.left()) + " stray bytes");
  return program;
}

}  // namespace millpower::isa
