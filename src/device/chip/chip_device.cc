#include "device/chip/chip_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/rng.h"
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
    FillOutputs(launch);
    return ++ticket_;
  }

  Result<Completion> Complete(Ticket ticket) override {
    CHECK(ticket == ticket_) << ticket;
    completed_ = ticket;
    const int64_t device_ns = Nanoseconds(options_.chip.launch_s.value + time_.seconds);
    const int64_t start_ns = options_.clock != nullptr ? options_.clock->NowNs() : 0;
    const double sampling_s = sampled_.empty() ? 0 : options_.chip.sampling_s.value;
    if (options_.clock != nullptr)
      options_.clock->AdvanceTo(start_ns + device_ns +
                                Nanoseconds(options_.chip.host_s.value + sampling_s));
    if (options_.on_launch)
      options_.on_launch({&timer_, &time_, spans_, start_ns, start_ns + device_ns});
    return Completion{device_ns, std::llround(options_.expand.ranks * time_.Joules() * 1e6)};
  }

  std::span<const std::byte> Output(int32_t id) const override {
    const isa::Buffer& buffer = program_->buffers[static_cast<size_t>(id)];
    CHECK(buffer.kind == isa::BufferKind::kOutput) << buffer.name;
    const auto& words = outputs_[static_cast<size_t>(id)];
    return std::as_bytes(std::span(words))
        .first(static_cast<size_t>(isa::BufferBytes(buffer, RowsOf(registers_, buffer.rows))));
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
