#include "device/probe/small_program.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/rng.h"
#include "device/launch.h"
#include "isa/encoding.h"
#include "isa/layout.h"
#include "isa/package.h"
#include "isa/verify.h"

namespace millpower::device::probe {
namespace {

constexpr int64_t kAlignment = 4096;

int64_t RoundUp(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

}  // namespace

Result<Pool> Pool::Make(int64_t bytes) {
  Pool pool;
  pool.size_ = RoundUp(bytes, kAlignment);
  pool.bytes_.reset(
      static_cast<std::byte*>(std::aligned_alloc(kAlignment, static_cast<size_t>(pool.size_))),
      &std::free);
  if (pool.bytes_ == nullptr)
    return Fail(ErrorCode::kNoCapacity, "no memory to measure with: " + std::to_string(bytes));
  // Pairs of bf16 around a half: as f32 and as f16 of about that size, too.
  for (int64_t at = 0; at < pool.size_; at += 4) {
    const auto bits = static_cast<uint32_t>(Mix64(static_cast<uint64_t>(at)));
    const uint32_t value = 0x3f003f00u | (bits & 0x80ff80ffu);
    std::memcpy(pool.bytes_.get() + at, &value, sizeof value);
  }
  return pool;
}

Result<SmallProgram> SmallProgram::Load(Device& device, const std::string& text, const Pool& pool,
                                        int64_t kv_pages, int64_t first_byte) {
  auto parsed = isa::Parse(text);
  CHECK(parsed) << parsed.error().message;
  const auto verified = isa::Verify(*parsed);
  CHECK(verified) << verified.error().message;
  isa::BoundWeights weights;
  int64_t at = first_byte;
  for (const isa::Buffer& buffer : parsed->buffers) {
    weights.by_buffer.emplace_back();
    if (buffer.kind != isa::BufferKind::kWeight) continue;
    const int64_t bytes = isa::BufferBytes(buffer, buffer.rows.size);
    const auto all = pool.bytes();
    CHECK(bytes <= std::ssize(all)) << bytes;
    if (at + bytes > std::ssize(all)) at = 0;
    weights.by_buffer.back() = all.subspan(static_cast<size_t>(at), static_cast<size_t>(bytes));
    at += RoundUp(bytes, isa::kLineBytes);
  }
  SmallProgram small;
  const auto program = std::make_shared<const isa::Program>(std::move(*parsed));
  small.launch_ = std::make_unique<Launch>(*program);
  small.lists_ = FindWorkLists(*program);
  std::map<std::vector<int64_t>, size_t> known;
  for (const isa::Instruction& instruction :
       program->streams[static_cast<size_t>(isa::Stream::kCompute)]) {
    if (instruction.op == isa::Opcode::kEnd) continue;
    const auto [at, added] =
        known.emplace(chip::ExpansionKey(*program, instruction), small.kinds_.size());
    if (added) small.kinds_.push_back({&instruction, 0});
    small.kinds_[at->second].count += 1;
  }
  TRY_ASSIGN(small.loaded_, device.Load(program, std::move(weights), {.kv_pages = kv_pages}));
  return small;
}

void SmallProgram::Set(const std::string& reg, int64_t value) {
  const int32_t index = program().FindRegister(reg);
  CHECK(index >= 0) << reg;
  launch_->registers[static_cast<size_t>(index)] = value;
}

std::vector<int32_t>& SmallProgram::Input(const std::string& buffer) {
  const int32_t index = program().FindBuffer(buffer);
  CHECK(index >= 0) << buffer;
  return launch_->inputs[static_cast<size_t>(index)];
}

void SmallProgram::FillInputs() {
  for (size_t i = 0; i < program().buffers.size(); ++i) {
    const isa::Buffer& buffer = program().buffers[i];
    if (buffer.kind != isa::BufferKind::kInput) continue;
    const int64_t rows = RowsOf(launch_->registers, buffer.rows);
    const float half = 0.5f;
    launch_->inputs[i].resize(static_cast<size_t>((isa::BufferBytes(buffer, rows) + 3) / 4),
                              buffer.dtype == DType::kF32 ? std::bit_cast<int32_t>(half) : 0);
  }
}

SmallProgram::Sizes SmallProgram::sizes() const {
  Sizes sizes{launch_->registers, {}};
  for (const WorkList& list : lists_) {
    const auto& words = launch_->inputs[static_cast<size_t>(list.sequences)];
    auto& runs = sizes.runs.emplace_back();
    for (size_t at = 0; at + isa::kSequenceColumns <= words.size(); at += isa::kSequenceColumns)
      runs.push_back({words[at + isa::kRowCount], words[at + isa::kFirstPosition]});
  }
  return sizes;
}

Result<double> SmallProgram::Predict(const chip::Chip& chip, const Sizes& sizes) const {
  const chip::LaunchView view{sizes.registers, lists_, sizes.runs};
  double seconds = 0;
  for (const Kind& kind : kinds_) {
    TRY_ASSIGN(const chip::Work work,
               chip::Expand(chip, {}, program(), *kind.example, view, /*joins=*/false));
    double each = work.issue_s;
    for (const chip::Wave& wave : work.waves)
      each += static_cast<double>(wave.count) *
              (*std::ranges::max_element(wave.busy_s) + wave.latency_s);
    seconds += kind.count * each;
  }
  return seconds;
}

Result<double> SmallProgram::Run() {
  FillInputs();
  TRY_ASSIGN(const Ticket ticket, loaded_->Submit(*launch_));
  TRY_ASSIGN(const Completion done, loaded_->Complete(ticket));
  return static_cast<double>(done.device_ns) * 1e-9;
}

Result<double> SmallProgram::RunBeside() {
  FillInputs();
  const SystemClock clock;
  const int64_t begin = clock.NowNs();
  TRY_ASSIGN(const Ticket ticket, loaded_->Submit(*launch_));
  TRY_ASSIGN(const Completion done, loaded_->Complete(ticket));
  return static_cast<double>(clock.NowNs() - begin - done.device_ns) * 1e-9;
}

}  // namespace millpower::device::probe
