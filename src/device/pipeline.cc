#include "device/pipeline.h"

#include <cstring>
#include <string>
#include <utility>

#include "base/check.h"

namespace millpower::device {
namespace {

using isa::Buffer;
using isa::BufferKind;
using isa::Program;

Error Misfit(size_t stage, const std::string& what) {
  return {ErrorCode::kInvalidArgument, "stage " + std::to_string(stage) + " " + what, {}};
}

struct Stage {
  std::unique_ptr<LoadedProgram> program;
  Launch launch;
  std::vector<std::pair<size_t, size_t>> registers;  // of the whole, and its own
  std::vector<std::pair<size_t, size_t>> inputs;     // of the whole, and its own
  int32_t hidden_in = isa::kNoBuffer;                // from the stage before
  int32_t hidden_out = isa::kNoBuffer;               // for the one behind

  explicit Stage(std::unique_ptr<LoadedProgram> loaded)
      : program(std::move(loaded)), launch(program->program()) {}
};

class Pipeline final : public LoadedProgram {
 public:
  Pipeline(std::shared_ptr<const Program> whole, std::vector<Stage> stages)
      : whole_(std::move(whole)), stages_(std::move(stages)) {
    const Program& last = stages_.back().program->program();
    for (const Buffer& buffer : whole_->buffers)
      outputs_.push_back(buffer.kind == BufferKind::kOutput ? last.FindBuffer(buffer.name)
                                                            : isa::kNoBuffer);
  }

  const Program& program() const override { return *whole_; }

  int64_t LoadRegister(int32_t reg) const override {
    const LoadedProgram& first = *stages_.front().program;
    return first.LoadRegister(
        first.program().FindRegister(whole_->registers[static_cast<size_t>(reg)].name));
  }

  Result<Ticket> Submit(const Launch& launch, LaunchClass launch_class) override {
    for (Stage& stage : stages_) {
      for (const auto& [from, to] : stage.registers)
        stage.launch.registers[to] = launch.registers[from];
      for (const auto& [from, to] : stage.inputs) stage.launch.inputs[to] = launch.inputs[from];
      stage.launch.claims = launch.claims;
    }
    launch_class_ = launch_class;
    TRY_ASSIGN(first_, stages_.front().program->Submit(stages_.front().launch, launch_class));
    return ++ticket_;
  }

  Result<Completion> Complete(Ticket ticket) override {
    CHECK(ticket == ticket_) << ticket;
    TRY_ASSIGN(Completion sum, stages_.front().program->Complete(first_));
    for (size_t i = 1; i < stages_.size(); ++i) {
      Stage& stage = stages_[i];
      Pass(stages_[i - 1], stage);
      TRY_ASSIGN(const Ticket next, stage.program->Submit(stage.launch, launch_class_));
      TRY_ASSIGN(const Completion part, stage.program->Complete(next));
      sum.device_ns += part.device_ns;
      sum.energy_uj += part.energy_uj;
    }
    return sum;
  }

  std::span<const std::byte> Output(int32_t buffer) const override {
    return stages_.back().program->Output(outputs_[static_cast<size_t>(buffer)]);
  }

 private:
  static void Pass(const Stage& from, Stage& to) {
    const std::span<const std::byte> rows = from.program->Output(from.hidden_out);
    std::vector<int32_t>& input = to.launch.inputs[static_cast<size_t>(to.hidden_in)];
    input.resize(rows.size() / sizeof(int32_t));
    if (!rows.empty()) std::memcpy(input.data(), rows.data(), rows.size());
  }

  const std::shared_ptr<const Program> whole_;
  std::vector<Stage> stages_;
  std::vector<int32_t> outputs_;  // of the last stage, by the whole's buffers
  LaunchClass launch_class_ = 0;
  Ticket first_ = 0, ticket_ = 0;
};

// Finds what of the whole a stage takes, and what it has for the others.
Result<void> Connect(const Program& whole, size_t index, bool is_last, Stage& stage) {
  const Program& program = stage.program->program();
  for (size_t reg = 0; reg < program.registers.size(); ++reg) {
    const isa::Register& own = program.registers[reg];
    if (own.at_load) continue;
    const int32_t from = whole.FindRegister(own.name);
    if (from < 0) return std::unexpected(Misfit(index, "has a size '" + own.name + "' of its own"));
    stage.registers.emplace_back(from, reg);
  }
  for (size_t id = 0; id < program.buffers.size(); ++id) {
    const Buffer& buffer = program.buffers[id];
    const auto own = static_cast<int32_t>(id);
    if (buffer.kind == BufferKind::kInput && buffer.dtype == DType::kF32) {
      if (stage.hidden_in >= 0 || index == 0)
        return std::unexpected(Misfit(index, "takes '" + buffer.name + "' from nowhere"));
      stage.hidden_in = own;
    } else if (buffer.kind == BufferKind::kInput) {
      const int32_t from = whole.FindBuffer(buffer.name);
      if (from < 0 || whole.buffers[static_cast<size_t>(from)].kind != BufferKind::kInput)
        return std::unexpected(Misfit(index, "takes '" + buffer.name + "' from nowhere"));
      stage.inputs.emplace_back(from, id);
    } else if (buffer.kind == BufferKind::kOutput && !is_last) {
      if (stage.hidden_out >= 0 || buffer.dtype != DType::kF32)
        return std::unexpected(Misfit(index, "has more for the next than rows of f32"));
      stage.hidden_out = own;
    }
  }
  if (index > 0 && stage.hidden_in < 0)
    return std::unexpected(Misfit(index, "takes nothing from the one before"));
  if (!is_last && stage.hidden_out < 0)
    return std::unexpected(Misfit(index, "has nothing for the next"));
  return {};
}

}  // namespace

Result<std::unique_ptr<LoadedProgram>> MakePipeline(
    std::shared_ptr<const Program> whole, std::vector<std::unique_ptr<LoadedProgram>> loaded) {
  CHECK(!loaded.empty());
  std::vector<Stage> stages;
  for (auto& program : loaded) stages.emplace_back(std::move(program));
  for (size_t i = 0; i < stages.size(); ++i) {
    TRY(Connect(*whole, i, i + 1 == stages.size(), stages[i]));
    if (i == 0) continue;
    const Program &before = stages[i - 1].program->program(), &own = stages[i].program->program();
    const Buffer& out = before.buffers[static_cast<size_t>(stages[i - 1].hidden_out)];
    const Buffer& in = own.buffers[static_cast<size_t>(stages[i].hidden_in)];
    const auto rows = [](const Program& program, const Buffer& buffer) {
      return buffer.rows.reg < 0 ? std::string()
                                 : program.registers[static_cast<size_t>(buffer.rows.reg)].name;
    };
    if (out.cols != in.cols || rows(before, out) != rows(own, in))
      return std::unexpected(Misfit(i, "takes other rows than the one before has"));
  }
  const Program& last = stages.back().program->program();
  for (const Buffer& buffer : whole->buffers)
    if (buffer.kind == BufferKind::kOutput && last.FindBuffer(buffer.name) < 0)
      return std::unexpected(Misfit(stages.size() - 1, "has no '" + buffer.name + "'"));
  return std::make_unique<Pipeline>(std::move(whole), std::move(stages));
}

}  // namespace millpower::device
