#include "device/chip/timer.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "isa/opcodes.h"

namespace millpower::device::chip {
namespace {

bool TakesTime(isa::Opcode op) {
  return op != isa::Opcode::kWait && op != isa::Opcode::kPost && op != isa::Opcode::kEnd;
}

// The most values of registers whose work is kept for one kind of instruction.
constexpr size_t kMaxKnown = 4096;

}  // namespace

double LaunchTime::Joules() const {
  double joules = idle_joules;
  for (const double unit : unit_joules) joules += unit;
  return joules;
}

Timer::Timer(std::shared_ptr<const isa::Program> program, Chip chip, ExpandOptions options)
    : program_(std::move(program)),
      chip_(std::move(chip)),
      options_(std::move(options)),
      machine_(chip_.prefetch_bytes.value / chip_.memory.bytes_per_s.value),
      work_lists_(FindWorkLists(*program_)) {
  view_.lists = work_lists_;
  view_.runs.resize(work_lists_.size());
  FindKinds();
}

void Timer::FindKinds() {
  std::map<std::vector<int64_t>, int32_t> known;
  for (size_t s = 0; s < isa::kStreamCount; ++s) {
    bool before = false;  // whether the last instruction was row work, and nothing came between
    for (const isa::Instruction& instruction : program_->streams[s]) {
      if (!TakesTime(instruction.op)) {
        before &= instruction.op != isa::Opcode::kWait;
        kind_of_[s].push_back(-1);
        continue;
      }
      const bool row_work = chip_.joins_row_work && IsRowWork(instruction.op);
      const bool joins = row_work && before;
      before = row_work;
      std::vector<int64_t> key = ExpansionKey(*program_, instruction);
      key.push_back(joins);
      const auto [at, added] = known.emplace(std::move(key), static_cast<int32_t>(kinds_.size()));
      if (added) {
        const Dependence dependence = DependenceOf(*program_, instruction);
        Kind& kind = kinds_.emplace_back();
        kind.example = &instruction;
        kind.joins = joins;
        kind.registers = dependence.registers;
        kind.follows_work = dependence.on_work;
      }
      kind_of_[s].push_back(at->second);
    }
    works_[s].assign(kind_of_[s].size(), nullptr);
  }
}

Result<LaunchTime> Timer::Time(std::span<const int64_t> registers, const Launch& launch,
                               std::vector<Span>* spans) {
  TRY(ExpandAll(registers, launch));
  std::vector<Span>& ran = spans != nullptr ? *spans : own_spans_;
  if (spans == nullptr) ran.clear();
  const size_t first = ran.size();
  TRY_ASSIGN(const Played played, machine_.Play(*program_, works_, &ran));
  LaunchTime time;
  time.seconds = played.end_s;
  time.busy_s = played.busy_s;
  time.idle_joules = chip_.idle_w.value * played.end_s;
  for (size_t i = first; i < ran.size(); ++i) {
    const Span& span = ran[i];
    const auto s = static_cast<size_t>(span.stream);
    const auto index = static_cast<size_t>(span.index);
    const Kind& kind = kinds_[static_cast<size_t>(kind_of_[s][index])];
    OpcodeTime& opcode = time.by_opcode[static_cast<size_t>(kind.example->op)];
    ++opcode.instructions;
    opcode.seconds += span.end_s - span.begin_s;
    for (size_t unit = 0; unit < kUnitCount; ++unit) {
      opcode.joules += kind.joules[unit];
      time.unit_joules[unit] += kind.joules[unit];
    }
    time.traffic += kind.work->traffic;
  }
  return time;
}

Result<void> Timer::ExpandAll(std::span<const int64_t> registers, const Launch& launch) {
  view_.registers = registers;
  for (size_t i = 0; i < work_lists_.size(); ++i) {
    auto& runs = view_.runs[i];
    runs.clear();
    const auto& rows = launch.inputs[static_cast<size_t>(work_lists_[i].sequences)];
    for (size_t at = 0; at + isa::kSequenceColumns <= rows.size(); at += isa::kSequenceColumns)
      runs.push_back({rows[at + isa::kRowCount], rows[at + isa::kFirstPosition]});
  }
  for (Kind& kind : kinds_) {
    if (!kind.follows_work) {
      key_.clear();
      for (const int32_t reg : kind.registers) key_.push_back(registers[static_cast<size_t>(reg)]);
      const auto found = kind.known.find(key_);
      if (found != kind.known.end()) {
        kind.work = &found->second;
      } else {
        TRY_ASSIGN(Work work, Expand(chip_, options_, *program_, *kind.example, view_, kind.joins));
        if (kind.known.size() >= kMaxKnown) kind.known.clear();
        kind.work = &kind.known.emplace(key_, std::move(work)).first->second;
      }
    } else {
      TRY_ASSIGN(kind.own, Expand(chip_, options_, *program_, *kind.example, view_, kind.joins));
      kind.work = &kind.own;
    }
    kind.joules = JoulesOf(*kind.work);
  }
  for (size_t s = 0; s < isa::kStreamCount; ++s)
    for (size_t i = 0; i < works_[s].size(); ++i)
      if (kind_of_[s][i] >= 0) works_[s][i] = kinds_[static_cast<size_t>(kind_of_[s][i])].work;
  return {};
}

const Work* Timer::WorkOf(isa::Stream stream, int32_t index) const {
  return works_[static_cast<size_t>(stream)][static_cast<size_t>(index)];
}

std::array<double, kUnitCount> Timer::JoulesOf(const Work& work) const {
  const Traffic& t = work.traffic;
  const Energy& energy = chip_.energy;
  std::array<double, kUnitCount> joules{};
  auto of = [&](Unit unit) -> double& { return joules[static_cast<size_t>(unit)]; };
  of(Unit::kMemory) = (t.memory_read + t.memory_written) * energy.memory_j_per_byte.value;
  of(Unit::kCache) = t.cache * energy.cache_j_per_byte.value;
  of(Unit::kScratch) = t.scratch * energy.scratch_j_per_byte.value;
  of(Unit::kLink) = t.link * energy.link_j_per_byte.value;
  of(Unit::kMatrix) = t.matrix_ops * MatrixJoulesPerOp(chip_, t.matrix_type);
  of(Unit::kVector) = t.vector_ops * energy.vector_j_per_op.value;
  return joules;
}

}  // namespace millpower::device::chip
