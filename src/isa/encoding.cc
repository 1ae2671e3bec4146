#include "isa/encoding.h"

#include "isa/bytes.h"

namespace millpower::isa {
namespace {

constexpr uint32_t kProgramMagic = 0x4752504d;  // "MPRG"
constexpr size_t kMaxNameBytes = 512;

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
  buffer.has_bound = in.Get<uint8_t>() != 0;
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
  }
  out.Put(program.semaphores);
  out.Put(static_cast<uint32_t>(program.buffers.size()));
  for (const Buffer& buffer : program.buffers) Put(out, buffer);
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
  for (size_t left = in.GetCount(12); left > 0 && in.ok(); --left) {
    std::string fact = in.GetString(kMaxNameBytes);
    program.facts[std::move(fact)] = in.Get<int64_t>();
  }
  for (size_t left = in.GetCount(13); left > 0 && in.ok(); --left) {
    Register reg;
    reg.name = in.GetString(kMaxNameBytes);
    reg.max = in.Get<int64_t>();
    reg.at_load = in.Get<uint8_t>() != 0;
    program.registers.push_back(std::move(reg));
  }
  program.semaphores = in.Get<int32_t>();
  for (size_t left = in.GetCount(36); left > 0 && in.ok(); --left) {
    TRY_ASSIGN(Buffer buffer, GetBuffer(in));
    program.buffers.push_back(std::move(buffer));
  }
  for (auto& stream : program.streams) {
    for (size_t left = in.GetCount(1); left > 0 && in.ok(); --left) {
      TRY_ASSIGN(Instruction instruction, GetInstruction(in));
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
