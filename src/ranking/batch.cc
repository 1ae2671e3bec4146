#include "ranking/batch.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/check.h"
#include "ranking/elements.h"

namespace millpower::ranking {
namespace {

// Answers that clients are slow to take keep their buffers; beyond these, new ones come and go.
constexpr size_t kBuffersKept = 8;
constexpr size_t kAlignment = 64;
// Tensors have no size of 0, but the bags of a launch may all be empty: then there is one item, a
// zero, that lies before the first of them.
constexpr int64_t kLead = 1;

int64_t Elements(std::span<const Dimension> shape, const isa::Program& program,
                 std::span<const int64_t> registers) {
  int64_t elements = 1;
  for (const Dimension& dimension : shape) elements *= dimension.Evaluate(program, registers);
  return elements;
}

// Copies offsets, moved along by what came before.
template <typename T>
void CopyOffsets(std::span<const std::byte> from, int64_t before, std::byte* to) {
  for (size_t at = 0; at < from.size(); at += sizeof(T)) {
    const T moved = static_cast<T>(ReadAs<T>(from.data() + at) + static_cast<T>(before));
    std::memcpy(to + at, &moved, sizeof moved);
  }
}

}  // namespace

Batcher::Batcher(const Layout& layout, int64_t max_batch)
    : layout_(layout), max_batch_(max_batch), sums_(layout.program->registers.size(), 0) {}

int64_t Batcher::Most(int32_t reg) const {
  return reg == layout_.batch ? max_batch_ : layout_.most(reg);
}

void Batcher::Clear() {
  std::ranges::fill(sums_, 0);
  rows_ = 0;
  first_ = nullptr;
}

bool Batcher::Take(const Pending& pending) {
  if (first_ != nullptr) {
    if (!layout_.joins || !MayJoin(layout_, *first_, pending)) return false;
    for (const int32_t reg : layout_.free_registers) {
      const auto index = static_cast<size_t>(reg);
      if (layout_.adds[index] && sums_[index] + pending.registers[index] > Most(reg)) return false;
    }
  }
  for (const int32_t reg : layout_.free_registers) {
    const auto index = static_cast<size_t>(reg);
    if (layout_.adds[index] || first_ == nullptr) sums_[index] += pending.registers[index];
  }
  rows_ += pending.rows(layout_);
  if (first_ == nullptr) first_ = &pending;
  return true;
}

int64_t Batcher::BytesOf(const ranking::Fill& fill, std::span<const int64_t> registers) const {
  return Elements(layout_.inputs[static_cast<size_t>(fill.port)], *layout_.program, registers) *
         SizeBytes(fill.dtype);
}

void Batcher::Fill(Requests requests, device::Launch& launch) const {
  for (const int32_t reg : layout_.free_registers) {
    const auto index = static_cast<size_t>(reg);
    const bool adds = layout_.adds[index];
    launch.registers[index] = 0;
    for (const auto& request : requests)
      if (adds || &request == &requests.front())
        launch.registers[index] += request->registers[index];
    if (adds && launch.registers[index] == 0) launch.registers[index] = kLead;
  }
  for (size_t i = 0; i < layout_.fills.size(); ++i) FillOne(i, requests, launch);
}

int64_t Batcher::LeadOf(const ranking::Fill& fill, Requests requests,
                        const device::Launch& launch) const {
  const auto& shape = layout_.inputs[static_cast<size_t>(fill.port)];
  const int32_t reg = fill.values >= 0                   ? fill.values
                      : fill.joining == Joining::kAppend ? shape[0].symbol
                                                         : -1;
  if (reg < 0) return 0;
  int64_t total = 0;
  for (const auto& request : requests) total += request->registers[static_cast<size_t>(reg)];
  return launch.registers[static_cast<size_t>(reg)] - total;
}

void Batcher::FillOne(size_t index, Requests requests, device::Launch& launch) const {
  const ranking::Fill& fill = layout_.fills[index];
  const int64_t size_bytes = BytesOf(fill, launch.registers);
  auto& words = launch.inputs[static_cast<size_t>(fill.buffer)];
  words.resize(static_cast<size_t>((size_bytes + 3) / 4));
  if (words.empty()) return;
  words.back() = 0;
  auto* const begin = reinterpret_cast<std::byte*>(words.data());
  const auto element = static_cast<size_t>(SizeBytes(fill.dtype));
  size_t at = 0;
  int64_t before = LeadOf(fill, requests, launch);
  if (fill.joining == Joining::kAppend && before > 0) {
    std::memset(begin, 0, static_cast<size_t>(size_bytes));
    return;
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    std::span<const std::byte> from = requests[i]->bytes[index];
    const bool is_last = i + 1 == requests.size();
    if (fill.joining == Joining::kOffsetsWithEnd && !is_last && !from.empty())
      from = from.first(from.size() - element);
    CHECK(at + from.size() <= static_cast<size_t>(size_bytes)) << "input " << fill.port;
    if (fill.values >= 0 && fill.dtype == DType::kI32)
      CopyOffsets<int32_t>(from, before, begin + at);
    else if (fill.values >= 0)
      CopyOffsets<int64_t>(from, before, begin + at);
    else if (!from.empty())
      std::memcpy(begin + at, from.data(), from.size());
    if (fill.values >= 0) before += requests[i]->registers[static_cast<size_t>(fill.values)];
    at += from.size();
    if (fill.joining == Joining::kSame) break;
  }
  CHECK(at == static_cast<size_t>(size_bytes)) << "input " << fill.port;
}

void Batcher::FillZeros(device::Launch& launch) const {
  for (const ranking::Fill& fill : layout_.fills) {
    const int64_t size_bytes = BytesOf(fill, launch.registers);
    auto& words = launch.inputs[static_cast<size_t>(fill.buffer)];
    words.assign(static_cast<size_t>((size_bytes + 3) / 4), 0);
    if (fill.joining != Joining::kOffsetsWithEnd) continue;
    const int64_t total = launch.registers[static_cast<size_t>(fill.values)];
    const auto element = static_cast<size_t>(SizeBytes(fill.dtype));
    std::memcpy(reinterpret_cast<std::byte*>(words.data()) + size_bytes - element, &total, element);
  }
}

std::shared_ptr<Batcher::Buffer> Batcher::TakeBuffer() {
  for (const auto& buffer : buffers_)
    if (buffer.use_count() == 1) {
      std::atomic_thread_fence(std::memory_order_acquire);  // after the last who read it let go
      return buffer;
    }
  auto buffer = std::make_shared<Buffer>();
  if (buffers_.size() < kBuffersKept) buffers_.push_back(buffer);
  return buffer;
}

std::vector<Answer> Batcher::Split(Requests requests, const device::Launch& launch,
                                   const device::LoadedProgram& program) {
  const isa::Program& made = *layout_.program;
  const std::shared_ptr<Buffer> buffer = TakeBuffer();
  const auto padded = [](size_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; };
  size_t total = 0;
  for (const OutputPlace& output : layout_.outputs)
    total += padded(
        static_cast<size_t>(Elements(output.shape, made, launch.registers) * output.element_bytes));
  buffer->resize(total);

  std::vector<Answer> answers(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    answers[i].owner = buffer;
    answers[i].rows = requests[i]->rows(layout_);
    answers[i].outputs.reserve(layout_.outputs.size());
  }
  size_t begin = 0;
  for (const OutputPlace& output : layout_.outputs) {
    const auto size =
        static_cast<size_t>(Elements(output.shape, made, launch.registers) * output.element_bytes);
    const std::span<const std::byte> bytes = program.Output(output.buffer);
    CHECK(bytes.size() >= size) << "output " << output.buffer;
    if (size > 0) std::memcpy(buffer->data() + begin, bytes.data(), size);
    size_t at = begin;
    for (size_t i = 0; i < requests.size(); ++i) {
      OutputTensor tensor;
      for (const Dimension& dimension : output.shape)
        tensor.shape.push_back(dimension.Evaluate(made, requests[i]->registers));
      const auto part = static_cast<size_t>(Elements(output.shape, made, requests[i]->registers) *
                                            output.element_bytes);
      tensor.bytes = {buffer->data() + at, part};
      at += part;
      CHECK(at <= begin + size) << "output " << output.buffer;
      answers[i].outputs.push_back(std::move(tensor));
    }
    begin += padded(size);
  }
  return answers;
}

}  // namespace millpower::ranking
