#include "device/launch.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <set>
#include <string>

#include "base/check.h"
#include "base/size.h"
#include "isa/sampling.h"

namespace millpower::device {
namespace {

std::unexpected<Error> Bad(std::string message) {
  return Fail(ErrorCode::kInvalidArgument, std::move(message));
}

// The first of `words`' elements of type T that is not in [0, bound).
template <typename T>
std::optional<int64_t> FindOutside(std::span<const int32_t> words, int64_t bound) {
  const auto* bytes = reinterpret_cast<const std::byte*>(words.data());
  for (size_t at = 0; at + sizeof(T) <= words.size_bytes(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes + at, sizeof value);
    if (value < 0 || value >= bound) return value;
  }
  return std::nullopt;
}

// Whether each byte is 0 or 1.
bool AreBools(std::span<const int32_t> words) {
  uint32_t bits = 0;
  for (const int32_t word : words) bits |= static_cast<uint32_t>(word);
  return (bits & ~0x01010101u) == 0;
}

}  // namespace

Result<void> LoadedProgram::UpdateRows(int32_t, std::span<const int64_t>,
                                       std::span<const std::byte>) {
  return Fail(ErrorCode::kUnsupported, "this device does not change tables");
}

Result<void> CheckRowUpdate(const isa::Program& program, int32_t buffer,
                            std::span<const int64_t> rows, std::span<const std::byte> bytes) {
  if (buffer < 0 || static_cast<size_t>(buffer) >= program.buffers.size() ||
      program.buffers[static_cast<size_t>(buffer)].form != isa::Form::kTable)
    return Bad("buffer " + std::to_string(buffer) + " is not an embedding table");
  const isa::Buffer& table = program.buffers[static_cast<size_t>(buffer)];
  const auto row_bytes = static_cast<size_t>(isa::BufferBytes(table, 1));
  if (bytes.size() % row_bytes != 0 || bytes.size() / row_bytes != rows.size())
    return Bad("table '" + table.name + "': " + std::to_string(bytes.size()) + " bytes are not " +
               std::to_string(rows.size()) + " rows of " + std::to_string(row_bytes));
  for (const int64_t row : rows)
    if (row < 0 || row >= table.rows.size)
      return Bad("table '" + table.name + "' has no row " + std::to_string(row));
  return {};
}

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
  AddFormulas();
  FindTensorSizes();
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

void LaunchChecker::AddFormulas() {
  for (size_t i = 0; i < program_.registers.size(); ++i) {
    if (program_.registers[i].formula.empty()) continue;
    const auto size = Size::Parse(program_.registers[i].formula);
    CHECK(size) << size.error().message;
    Formula& formula = formulas_.emplace_back(Formula{static_cast<int32_t>(i), {}});
    for (const auto& [symbols, coefficient] : size->terms()) {
      Formula::Term& term = formula.terms.emplace_back(Formula::Term{coefficient, {}});
      for (const std::string& symbol : symbols)
        term.factors.push_back(program_.FindRegister(symbol));
    }
  }
}

// All that Verify has proven of shapes holds for registers of at least 1; and what a dimension is
// must be that itself. LLM Programs launch with registers of 0, which no tensor's size is made of.
void LaunchChecker::FindTensorSizes() {
  std::vector<const Formula*> formula_of(program_.registers.size(), nullptr);
  for (const Formula& formula : formulas_) formula_of[static_cast<size_t>(formula.reg)] = &formula;
  std::set<int32_t> found;
  const auto add = [&](const isa::Dim& dim, bool is_dimension) {
    if (dim.reg < 0) return;
    const Formula* formula = formula_of[static_cast<size_t>(dim.reg)];
    if (formula == nullptr || is_dimension) found.insert(dim.reg);
    if (formula == nullptr) return;
    for (const Formula::Term& term : formula->terms)
      found.insert(term.factors.begin(), term.factors.end());
  };
  const auto add_shape = [&](int64_t shape, bool are_dimensions) {
    for (const isa::Dim& dim : program_.shapes[static_cast<size_t>(shape)])
      add(dim, are_dimensions);
  };
  for (const auto& stream : program_.streams)
    for (const isa::Instruction& instruction : stream) {
      const isa::OpInfo& info = isa::Info(instruction.op);
      if (!info.takes_tensors()) continue;
      for (const isa::Operand& operand : instruction.operands) {
        if (!operand.present()) continue;
        add(program_.buffer(operand).rows, true);
        if (operand.shape >= 0) add_shape(operand.shape, true);
      }
      for (size_t i = 0; i < info.attributes.size(); ++i)
        if (info.attributes[i].type == isa::AttributeType::kSizes)
          add_shape(instruction.attributes[i],
                    instruction.op == isa::Opcode::kCopy && i == isa::copy::kWindow);
    }
  tensor_sizes_.assign(found.begin(), found.end());
}

Result<void> LaunchChecker::CheckRegisters(std::span<int64_t> registers) const {
  const auto check = [&](size_t i) -> Result<void> {
    const isa::Register& reg = program_.registers[i];
    if (registers[i] >= 0 && registers[i] <= reg.max) return {};
    return Bad("register '" + reg.name + "' is " + std::to_string(registers[i]) + ", outside 0.." +
               std::to_string(reg.max));
  };
  for (size_t i = 0; i < registers.size(); ++i)
    if (program_.registers[i].formula.empty()) TRY(check(i));
  // Nothing overflows: Verify has seen each sum at its registers' bounds, and they are inside.
  for (const Formula& formula : formulas_) {
    int64_t sum = 0;
    for (const Formula::Term& term : formula.terms) {
      int64_t product = term.coefficient;
      for (const int32_t factor : term.factors) product *= registers[static_cast<size_t>(factor)];
      sum += product;
    }
    registers[static_cast<size_t>(formula.reg)] = sum;
    TRY(check(static_cast<size_t>(formula.reg)));
  }
  for (const int32_t size : tensor_sizes_)
    if (registers[static_cast<size_t>(size)] < 1)
      return Bad("register '" + program_.registers[static_cast<size_t>(size)].name +
                 "' is 0, and a tensor has no dimension of 0");
  return {};
}

void LaunchChecker::Exempt(int32_t input) { std::erase(inputs_, input); }

Result<void> LaunchChecker::Check(const Launch& launch, std::span<int64_t> registers) {
  TRY(CheckRegisters(registers));
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
  const std::vector<int32_t>& words = launch.inputs[static_cast<size_t>(id)];
  const int64_t expected = (isa::BufferBytes(buffer, RowsOf(registers, buffer.rows)) + 3) / 4;
  if (static_cast<int64_t>(words.size()) != expected)
    return Bad("input '" + buffer.name + "' has " + std::to_string(words.size()) + " words, not " +
               std::to_string(expected));
  if (buffer.dtype == DType::kBool && !AreBools(words))
    return Bad("input '" + buffer.name + "' holds a bool that is neither 0 nor 1");
  if (!buffer.has_bound) return {};
  const int64_t bound = RowsOf(registers, buffer.bound);
  const auto outside = buffer.dtype == DType::kI64 ? FindOutside<int64_t>(words, bound)
                                                   : FindOutside<int32_t>(words, bound);
  if (!outside) return {};
  return Bad("input '" + buffer.name + "' holds " + std::to_string(*outside) +
             ", which is not in [0, " + std::to_string(bound) + ")");
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
