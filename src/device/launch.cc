#include "device/launch.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "isa/sampling.h"

namespace millpower::device {
namespace {

std::unexpected<Error> Bad(std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message));
}

}  // namespace

int64_t KvPageBytes(const isa::Program& program) {
  int64_t bytes = 0;
  for (const isa::Buffer& buffer : program.buffers)
    if (buffer.kind == isa::BufferKind::kKv) bytes += isa::BufferBytes(buffer, 1);
  return bytes;
}

std::vector<WorkList> FindWorkLists(const isa::Program& program) {
  std::vector<WorkList> lists;
  auto add = [&](const isa::Operand& sequences, const isa::Operand& pages,
                 const isa::Operand& rows) {
    const WorkList list{sequences.buffer, pages.buffer, program.buffer(rows).rows};
    if (std::ranges::find(lists, list) == lists.end()) lists.push_back(list);
  };
  for (const auto& stream : program.streams) {
    for (const isa::Instruction& instruction : stream) {
      if (instruction.op == isa::Opcode::kKvAppend)
        add(instruction.operand(isa::kv_append::kSequences),
            instruction.operand(isa::kv_append::kPages), instruction.operand(isa::kv_append::kK));
      if (instruction.op == isa::Opcode::kAttention)
        add(instruction.operand(isa::attention::kSequences),
            instruction.operand(isa::attention::kPages), instruction.operand(isa::attention::kQ));
    }
  }
  return lists;
}

int64_t RowsOf(std::span<const int64_t> registers, const isa::Dim& dim) {
  return dim.reg < 0 ? dim.size : registers[static_cast<size_t>(dim.reg)];
}

LaunchChecker::LaunchChecker(const isa::Program& program)
    : program_(program), work_lists_(FindWorkLists(program)) {
  for (size_t i = 0; i < program.buffers.size(); ++i)
    if (program.buffers[i].kind == isa::BufferKind::kInput)
      inputs_.push_back(static_cast<int32_t>(i));
  for (const auto& stream : program.streams)
    for (const isa::Instruction& instruction : stream) {
      if (instruction.op != isa::Opcode::kSample) continue;
      const isa::Operand& operand = instruction.operand(isa::sample::kAdjustments);
      if (program.buffer(operand).kind == isa::BufferKind::kInput &&
          std::ranges::find(adjustments_, operand) == adjustments_.end())
        adjustments_.push_back(operand);
    }
  for (const WorkList& list : work_lists_)
    written_pages_.reserve(static_cast<size_t>(
        program.Max(list.rows) / isa::kPagePositions +
        2 * program.Max(program.buffers[static_cast<size_t>(list.sequences)].rows)));
}

Result<void> LaunchChecker::Check(const Launch& launch, std::span<const int64_t> registers) {
  for (size_t i = 0; i < program_.registers.size(); ++i) {
    const isa::Register& reg = program_.registers[i];
    if (registers[i] < 0 || registers[i] > reg.max)
      return Bad("register '" + reg.name + "' is " + std::to_string(registers[i]) +
                 ", outside 0.." + std::to_string(reg.max));
  }
  for (const Claim& claim : launch.claims)
    if (!(claim.share > 0) || std::isinf(claim.share))
      return Bad("a claim is of " + std::to_string(claim.share) + ", not a positive number");
  for (const int32_t input : inputs_) TRY(CheckInput(launch, registers, input));
  for (const WorkList& list : work_lists_) TRY(CheckWorkList(launch, registers, list));
  for (const isa::Operand& adjustments : adjustments_) TRY(CheckAdjustments(launch, adjustments));
  return {};
}

Result<void> LaunchChecker::CheckAdjustments(const Launch& launch, const isa::Operand& operand) {
  const isa::Buffer& buffer = program_.buffer(operand);
  const auto& values = launch.inputs[static_cast<size_t>(operand.buffer)];
  for (auto at = static_cast<size_t>(operand.begin); at < values.size();
       at += static_cast<size_t>(buffer.cols)) {
    const float divide = isa::FloatOf(values[at + isa::kAdjustDivide]);
    const float add = isa::FloatOf(values[at + isa::kAdjustAdd]);
    if (!(divide > 0) || std::isinf(divide) || std::isnan(add))
      return Bad("input '" + buffer.name + "' holds an adjustment that divides by " +
                 std::to_string(divide) + " and adds " + std::to_string(add));
  }
  return {};
}

Result<void> LaunchChecker::CheckInput(const Launch& launch, std::span<const int64_t> registers,
                                       int32_t id) {
  const isa::Buffer& buffer = program_.buffers[static_cast<size_t>(id)];
  const std::vector<int32_t>& values = launch.inputs[static_cast<size_t>(id)];
  const int64_t expected = RowsOf(registers, buffer.rows) * buffer.cols;
  if (static_cast<int64_t>(values.size()) != expected)
    return Bad("input '" + buffer.name + "' has " + std::to_string(values.size()) +
               " values, not " + std::to_string(expected));
  if (!buffer.has_bound) return {};
  const int64_t bound = RowsOf(registers, buffer.bound);
  for (const int32_t value : values)
    if (value < 0 || value >= bound)
      return Bad("input '" + buffer.name + "' holds " + std::to_string(value) +
                 ", which is not below " + std::to_string(bound));
  return {};
}

Result<void> LaunchChecker::CheckWorkList(const Launch& launch, std::span<const int64_t> registers,
                                          const WorkList& list) {
  const std::string& name = program_.buffers[static_cast<size_t>(list.sequences)].name;
  const auto& sequences = launch.inputs[static_cast<size_t>(list.sequences)];
  const auto& pages = launch.inputs[static_cast<size_t>(list.pages)];
  int64_t next_row = 0;
  written_pages_.clear();
  for (size_t at = 0; at < sequences.size(); at += isa::kSequenceColumns) {
    const int64_t row_begin = sequences[at + isa::kRowBegin];
    const int64_t row_count = sequences[at + isa::kRowCount];
    const int64_t first = sequences[at + isa::kFirstPosition];
    const int64_t page_begin = sequences[at + isa::kPageBegin];
    if (row_begin != next_row || row_count < 1 || first < 0)
      return Bad("'" + name + "' does not cover the rows one after the other");
    next_row = row_begin + row_count;
    const int64_t page_count = (first + row_count + isa::kPagePositions - 1) / isa::kPagePositions;
    if (page_begin < 0 || page_begin + page_count > static_cast<int64_t>(pages.size()))
      return Bad("'" + name + "' names more pages than are listed");
    for (int64_t i = first / isa::kPagePositions; i < page_count; ++i)
      written_pages_.push_back(pages[static_cast<size_t>(page_begin + i)]);
  }
  if (next_row != RowsOf(registers, list.rows))
    return Bad("'" + name + "' covers " + std::to_string(next_row) + " rows, not all");
  std::ranges::sort(written_pages_);
  if (std::ranges::adjacent_find(written_pages_) != written_pages_.end())
    return Bad("'" + name + "' has two sequences write one page");
  return {};
}

}  // namespace millpower::device
