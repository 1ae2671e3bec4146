#include "cli/logits_runner.h"

#include <algorithm>
#include <string>

#include "base/check.h"
#include "isa/sampling.h"

namespace millpower::cli {
namespace {

constexpr const char* kRegisters[] = {"rows", "seqs", "picked", "adjusts", "page_entries", "pages"};
constexpr const char* kBuffers[] = {"tokens",        "positions",   "sequences",
                                    "pages",         "picked_rows", "sampling",
                                    "adjust_tokens", "adjustments", "logits"};

int64_t PagesOf(int64_t positions) {
  return (positions + isa::kPagePositions - 1) / isa::kPagePositions;
}

Result<void> CheckProgram(const isa::Program& program) {
  auto missing = [](const std::string& what) {
    return Fail(ErrorCode::kUnsupported, "the Program is no language model: it has no " + what);
  };
  for (const char* name : kRegisters)
    if (program.FindRegister(name) < 0) return missing(std::string("register '") + name + "'");
  for (const char* name : kBuffers)
    if (program.FindBuffer(name) < 0) return missing(std::string("buffer '") + name + "'");
  const isa::Buffer& logits = program.buffers[static_cast<size_t>(program.FindBuffer("logits"))];
  if (logits.kind != isa::BufferKind::kOutput || logits.dtype != DType::kF32 ||
      logits.rows.reg != program.FindRegister("picked") ||
      logits.cols != program.FactOr("vocab_size", 0))
    return missing("output of logits");
  return {};
}

}  // namespace

Result<LogitsRunner> LogitsRunner::Load(device::Device& device,
                                        std::shared_ptr<const isa::Program> program,
                                        isa::BoundWeights weights, int64_t positions) {
  TRY(CheckProgram(*program));
  auto max = [&](const char* name) {
    return program->registers[static_cast<size_t>(program->FindRegister(name))].max;
  };
  const int64_t most =
      std::min(program->FactOr("max_positions", 0), max("page_entries") * isa::kPagePositions);
  if (positions < 1 || positions > most)
    return Fail(ErrorCode::kOutOfRange, "a context of " + std::to_string(positions) +
                                            " tokens; the model takes 1 to " +
                                            std::to_string(most));
  if (max("seqs") < 1 || max("rows") < 1 || max("picked") < 1 || max("pages") < PagesOf(positions))
    return Fail(ErrorCode::kUnsupported, "the Program has no room for a sequence of " +
                                             std::to_string(positions) + " tokens");
  TRY_ASSIGN(auto loaded,
             device.Load(std::move(program), std::move(weights), {.kv_pages = PagesOf(positions)}));
  return LogitsRunner(std::move(loaded), positions);
}

LogitsRunner::LogitsRunner(std::unique_ptr<device::LoadedProgram> loaded, int64_t positions)
    : loaded_(std::move(loaded)), positions_(positions), launch_(loaded_->program()) {
  const isa::Program& program = loaded_->program();
  auto max = [&](const char* name) {
    return program.registers[static_cast<size_t>(program.FindRegister(name))].max;
  };
  vocab_size_ = program.FactOr("vocab_size", 0);
  max_rows_ = max("rows");
  max_picked_ = std::min(max("picked"), max_rows_);
}

std::vector<int32_t>& LogitsRunner::Input(const char* name) {
  return launch_.inputs[static_cast<size_t>(loaded_->program().FindBuffer(name))];
}

void LogitsRunner::SetRegister(const char* name, int64_t value) {
  launch_.registers[static_cast<size_t>(loaded_->program().FindRegister(name))] = value;
}

Result<std::span<const float>> LogitsRunner::Run(std::span<const int32_t> tokens,
                                                 int64_t first_position, int64_t picked) {
  const auto rows = static_cast<int64_t>(tokens.size());
  CHECK(rows >= 1 && rows <= max_rows_) << rows << " rows";
  CHECK(picked >= 0 && picked <= std::min(max_picked_, rows)) << picked << " picked";
  CHECK(first_position >= 0 && first_position <= positions_ - rows) << first_position;

  Input("tokens").assign(tokens.begin(), tokens.end());
  auto& positions = Input("positions");
  positions.clear();
  for (int64_t row = 0; row < rows; ++row)
    positions.push_back(static_cast<int32_t>(first_position + row));
  Input("sequences") = {0, static_cast<int32_t>(rows), static_cast<int32_t>(first_position), 0};
  auto& pages = Input("pages");  // the sequence has all of them, in order
  pages.clear();
  for (int64_t page = 0; page < PagesOf(first_position + rows); ++page)
    pages.push_back(static_cast<int32_t>(page));

  // The Program draws a token from each row, too; nobody looks at it. Greedy costs least.
  int32_t words[isa::kSampleParamWords] = {};
  words[isa::kSampleTopP] = isa::WordOf(1.0f);
  words[isa::kSampleLogprobs] = -1;
  words[isa::kSampleTarget] = -1;
  auto& picked_rows = Input("picked_rows");
  auto& sampling = Input("sampling");
  picked_rows.clear();
  sampling.clear();
  for (int64_t row = rows - picked; row < rows; ++row) {
    picked_rows.push_back(static_cast<int32_t>(row));
    sampling.insert(sampling.end(), std::begin(words), std::end(words));
  }
  SetRegister("rows", rows);
  SetRegister("seqs", 1);
  SetRegister("picked", picked);
  SetRegister("adjusts", 0);
  SetRegister("page_entries", static_cast<int64_t>(pages.size()));

  TRY_ASSIGN(const device::Ticket ticket, loaded_->Submit(launch_));
  TRY(loaded_->Complete(ticket));
  const auto bytes = loaded_->Output(loaded_->program().FindBuffer("logits"));
  return std::span(reinterpret_cast<const float*>(bytes.data()),
                   static_cast<size_t>(picked * vocab_size_));
}

}  // namespace millpower::cli
