#include "device/chip/chip_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/rng.h"
#include "device/chip/cost_collective.h"
#include "device/launch.h"
#include "isa/sampling.h"

namespace millpower::device::chip {
namespace {

int64_t Nanoseconds(double seconds) { return std::llround(seconds * 1e9); }

class ChipProgram final : public LoadedProgram {
 public:
  ChipProgram(std::shared_ptr<const isa::Program> program, const ChipOptions& options,
              int64_t kv_pages)
      : program_(std::move(program)),
        options_(options),
        checker_(*program_),
        timer_(program_, options.chip, options.expand),
        outputs_(program_->buffers.size()) {
    for (const isa::Register& reg : program_->registers)
      registers_.push_back(reg.at_load && reg.name != isa::kRankRegister ? kv_pages : 0);
    FindSampled();
    if (options_.stage.stage == 0) return;
    for (size_t id = 0; id < program_->buffers.size(); ++id) {
      const isa::Buffer& buffer = program_->buffers[id];
      if (buffer.kind != isa::BufferKind::kInput || buffer.dtype != DType::kF32) continue;
      received_.push_back(&buffer);
      checker_.Exempt(static_cast<int32_t>(id));
    }
  }

  const isa::Program& program() const override { return *program_; }
  int64_t LoadRegister(int32_t reg) const override { return registers_[static_cast<size_t>(reg)]; }

  Result<Ticket> Submit(const Launch& launch, LaunchClass) override {
    CHECK(completed_ == ticket_) << "a launch is in flight";
    for (size_t i = 0; i < registers_.size(); ++i)
      if (!program_->registers[i].at_load) registers_[i] = launch.registers[i];
    TRY(checker_.Check(launch, registers_));
    spans_.clear();
    TRY_ASSIGN(time_, timer_.Time(registers_, launch, options_.with_spans ? &spans_ : nullptr));
    Receive();
    FillOutputs(launch);
    return ++ticket_;
  }

  Result<Completion> Complete(Ticket ticket) override {
    CHECK(ticket == ticket_) << ticket;
    completed_ = ticket;
    const StageOptions& stage = options_.stage;
    const int64_t device_ns = Nanoseconds(options_.chip.launch_s.value + time_.seconds);
    int64_t start_ns = options_.clock != nullptr ? options_.clock->NowNs() : 0;
    if (stage.turns != nullptr)
      start_ns = stage.turns->Take(stage.user, stage.stage, start_ns, device_ns);
    double host_s = sampled_.empty() ? 0 : options_.chip.sampling_s.value;
    if (stage.stage + 1 == stage.stages) host_s += options_.chip.host_s.value;
    if (options_.clock != nullptr)
      options_.clock->AdvanceTo(start_ns + device_ns + Nanoseconds(host_s));
    if (options_.on_launch)
      options_.on_launch({&timer_, &time_, spans_, start_ns, start_ns + device_ns, stage.stage});
    return Completion{device_ns, std::llround(options_.expand.ranks * time_.Joules() * 1e6)};
  }

  std::span<const std::byte> Output(int32_t id) const override {
    const isa::Buffer& buffer = program_->buffers[static_cast<size_t>(id)];
    CHECK(buffer.kind == isa::BufferKind::kOutput) << buffer.name;
    if (options_.stage.stage + 1 < options_.stage.stages) return {};  // it goes from chip to chip
    const auto bytes =
        static_cast<size_t>(isa::BufferBytes(buffer, RowsOf(registers_, buffer.rows)));
    const std::vector<int32_t>& record = outputs_[static_cast<size_t>(id)];
    if (!record.empty()) return std::as_bytes(std::span(record)).first(bytes);
    if (zeros_.size() * sizeof(int32_t) < bytes) zeros_.resize((bytes + 3) / 4);
    return std::as_bytes(std::span(zeros_)).first(bytes);
  }

 private:
  struct Sampled {
    int32_t params = -1, record = -1;
    int64_t vocab = 0;
  };

  void FindSampled() {
    for (const auto& stream : program_->streams)
      for (const isa::Instruction& in : stream)
        if (in.op == isa::Opcode::kSample)
          sampled_.push_back({in.operand(isa::sample::kParams).buffer,
                              in.operand(isa::sample::kRecord).buffer,
                              in.operand(isa::sample::kLogits).cols});
  }

  void FillOutputs(const Launch& launch) {
    for (const Sampled& sampled : sampled_) {
      const isa::Buffer& buffer = program_->buffers[static_cast<size_t>(sampled.record)];
      const int64_t bytes = isa::BufferBytes(buffer, RowsOf(registers_, buffer.rows));
      outputs_[static_cast<size_t>(sampled.record)].assign(static_cast<size_t>((bytes + 3) / 4), 0);
      Draw(launch, sampled);
    }
  }

  // Adds what it takes until the rows of the stage before are here.
  void Receive() {
    double bytes = 0;
    for (const isa::Buffer* buffer : received_)
      bytes += static_cast<double>(RowsOf(registers_, buffer->rows) * buffer->cols *
                                   SizeBytes(options_.chip.activation_type));
    if (bytes == 0) return;
    const Work work = ReceiveWork(options_.chip, bytes);
    double seconds = work.issue_s;
    for (const Wave& wave : work.waves) seconds += wave.busy(Unit::kLink) + wave.latency_s;
    const auto joules = timer_.JoulesOf(work);
    for (size_t unit = 0; unit < kUnitCount; ++unit) time_.unit_joules[unit] += joules[unit];
    for (const Wave& wave : work.waves)
      time_.busy_s[static_cast<size_t>(Unit::kLink)] += wave.busy(Unit::kLink);
    time_.traffic += work.traffic;
    time_.idle_joules += options_.chip.idle_w.value * seconds;
    time_.seconds += seconds;
    for (Span& span : spans_)
      span.begin_s += seconds, span.start_s += seconds, span.end_s += seconds;
  }

  // A token for each row: the one it must be, or a random one of its seed.
  void Draw(const Launch& launch, const Sampled& sampled) {
    const auto& params = launch.inputs[static_cast<size_t>(sampled.params)];
    auto& record = outputs_[static_cast<size_t>(sampled.record)];
    const size_t rows =
        std::min(params.size() / isa::kSampleParamWords, record.size() / isa::kSampleRecordWords);
    for (size_t row = 0; row < rows; ++row) {
      const int32_t* param = params.data() + row * isa::kSampleParamWords;
      const uint64_t seed = static_cast<uint32_t>(param[isa::kSampleSeedLow]) |
                            uint64_t{static_cast<uint32_t>(param[isa::kSampleSeedHigh])} << 32;
      const auto counter = static_cast<uint64_t>(static_cast<uint32_t>(param[isa::kSampleCounter]));
      const int32_t target = param[isa::kSampleTarget];
      const auto drawn =
          static_cast<int32_t>(RandomBits(seed, counter) % static_cast<uint64_t>(sampled.vocab));
      record[row * isa::kSampleRecordWords + isa::kRecordToken] = target >= 0 ? target : drawn;
    }
  }

  const std::shared_ptr<const isa::Program> program_;
  const ChipOptions& options_;
  LaunchChecker checker_;
  Timer timer_;
  std::vector<int64_t> registers_;
  std::vector<std::vector<int32_t>> outputs_;  // by buffer; of records
  mutable std::vector<int32_t> zeros_;
  std::vector<Sampled> sampled_;
  std::vector<const isa::Buffer*> received_;  // inputs that another chip has
  std::vector<Span> spans_;
  LaunchTime time_;
  Ticket ticket_ = 0, completed_ = 0;
};

class ChipDevice final : public Device {
 public:
  explicit ChipDevice(ChipOptions options) : options_(std::move(options)) {}

  Result<std::unique_ptr<LoadedProgram>> Load(std::shared_ptr<const isa::Program> program,
                                              isa::BoundWeights, const LoadOptions& load) override {
    TRY_ASSIGN(const Footprint footprint, FootprintOn(options_.chip, *program));
    for (const isa::Register& reg : program->registers) {
      if (!reg.at_load || reg.name == isa::kRankRegister) continue;  // of all ranks, the first
      if (load.kv_pages < 1 || load.kv_pages > reg.max)
        return Fail(ErrorCode::kInvalidArgument,
                    fmt::format("{} KV pages; the Program takes 1 to {}", load.kv_pages, reg.max));
      if (load.kv_pages > footprint.kv_pages)
        return Fail(
            ErrorCode::kNoCapacity,
            fmt::format("{} KV pages of {} bytes do not fit: {} has room for {} beside "
                        "weights and scratch",
                        load.kv_pages, footprint.kv_page, options_.chip.name, footprint.kv_pages));
    }
    return std::make_unique<ChipProgram>(std::move(program), options_, load.kv_pages);
  }

 private:
  const ChipOptions options_;
};

}  // namespace

Result<Footprint> FootprintOn(const Chip& chip, const isa::Program& program) {
  Footprint footprint;
  footprint.memory = static_cast<int64_t>(chip.memory.bytes.value);
  footprint.kv_page = KvPageBytes(program);
  const int64_t activation = SizeBytes(chip.activation_type);
  for (const isa::Buffer& buffer : program.buffers) {
    const int64_t bytes = isa::BufferBytes(buffer, program.Max(buffer.rows));
    if (buffer.kind == isa::BufferKind::kWeight)
      footprint.weights += bytes;
    else if (buffer.kind != isa::BufferKind::kKv)
      footprint.scratch += buffer.dtype == DType::kF32 ? bytes / 4 * activation : bytes;
  }
  const int64_t left = footprint.memory - footprint.weights - footprint.scratch;
  if (left < footprint.kv_page)
    return Fail(ErrorCode::kNoCapacity,
                fmt::format("does not fit: {:.2f} GB of weights and {:.2f} GB of scratch{} on {}, "
                            "which has {:.2f} GB",
                            static_cast<double>(footprint.weights) * 1e-9,
                            static_cast<double>(footprint.scratch) * 1e-9,
                            footprint.kv_page > 0 ? " and a page of KV" : "", chip.name,
                            static_cast<double>(footprint.memory) * 1e-9));
  footprint.kv_pages = footprint.kv_page > 0 ? left / footprint.kv_page : 0;
  return footprint;
}

std::unique_ptr<Device> MakeChipDevice(ChipOptions options) {
  return std::make_unique<ChipDevice>(std::move(options));
}

}  // namespace millpower::device::chip
