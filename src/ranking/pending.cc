#include "ranking/pending.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "ranking/elements.h"

namespace millpower::ranking {
namespace {

std::unexpected<Error> Bad(const Port& port, const std::string& what,
                           ErrorCode code = ErrorCode::kInvalidArgument) {
  return Fail(code, fmt::format("input '{}' {}", port.name, what), port.name);
}

std::string ShapeText(const Port& port) {
  std::vector<std::string> sizes;
  for (const Size& size : port.shape) sizes.push_back(size.ToString());
  return fmt::format("[{}]", fmt::join(sizes, ", "));
}

// Elements of a shape; -1 where it overflows or holds negative sizes.
int64_t ElementsOf(std::span<const int64_t> shape) {
  int64_t elements = 1;
  for (const int64_t size : shape)
    if (size < 0 || __builtin_mul_overflow(elements, size, &elements)) return -1;
  return elements;
}

class Binder {
 public:
  Binder(const Model& model, const Layout& layout, Pending& pending)
      : model_(model), signature_(model.signature), layout_(layout), pending_(pending) {}

  Result<void> Bind() {
    if (pending_.request.inputs.size() != signature_.inputs.size())
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("{} inputs are given, but the model has {}",
                              pending_.request.inputs.size(), signature_.inputs.size()));
    pending_.registers.assign(layout_.program->registers.size(), 0);
    known_.assign(layout_.program->registers.size(), false);
    for (size_t i = 0; i < signature_.inputs.size(); ++i) TRY(BindSizes(i));
    for (size_t i = 0; i < signature_.inputs.size(); ++i) TRY(CheckTensor(i));
    TRY(CheckBounds());
    return FillAll();
  }

 private:
  const Port& port(size_t index) const { return signature_.inputs[index]; }
  const InputTensor& tensor(size_t index) const { return pending_.request.inputs[index]; }

  // Learns what single dimensions tell; whether they agree is CheckTensor's business.
  Result<void> BindSizes(size_t index) {
    const auto& shape = layout_.inputs[index];
    const auto& given = tensor(index).shape;
    const auto misfit = [&] {
      return Bad(port(index), fmt::format("has the shape [{}], but the model takes {}",
                                          fmt::join(given, ", "), ShapeText(port(index))));
    };
    if (given.size() != shape.size()) return misfit();
    for (size_t i = 0; i < shape.size(); ++i) {
      const Dimension& dimension = shape[i];
      if (!dimension.is_line || dimension.symbol < 0 || dimension.coefficient <= 0) continue;
      const auto reg = static_cast<size_t>(dimension.symbol);
      int64_t left = 0;
      if (__builtin_sub_overflow(given[i], dimension.constant, &left) || left < 0 ||
          left % dimension.coefficient != 0)
        return misfit();
      if (!known_[reg]) pending_.registers[reg] = left / dimension.coefficient;
      known_[reg] = true;
    }
    return {};
  }

  Result<void> CheckTensor(size_t index) {
    const auto& shape = layout_.inputs[index];
    const InputTensor& given = tensor(index);
    for (size_t i = 0; i < shape.size(); ++i)
      if (given.shape[i] != shape[i].Evaluate(*layout_.program, pending_.registers))
        return Bad(port(index),
                   fmt::format("has the shape [{}], which does not fit {} and the other inputs",
                               fmt::join(given.shape, ", "), ShapeText(port(index))));
    const int64_t elements = ElementsOf(given.shape);
    const int64_t there = port(index).is_string
                              ? std::ssize(given.strings)
                              : std::ssize(given.bytes) / SizeBytes(port(index).dtype);
    const bool is_whole =
        port(index).is_string || std::ssize(given.bytes) % SizeBytes(port(index).dtype) == 0;
    if (elements < 0 || elements != there || !is_whole)
      return Bad(port(index), fmt::format("has {} elements, but its shape [{}] wants {}", there,
                                          fmt::join(given.shape, ", "), elements));
    const auto is_truth = [](std::byte byte) { return byte <= std::byte{1}; };
    if (port(index).dtype == DType::kBool && !std::ranges::all_of(given.bytes, is_truth))
      return Bad(port(index), "holds a boolean that is neither 0 nor 1");
    pending_.size_bytes += std::ssize(given.bytes);
    for (const std::string_view text : given.strings)
      pending_.size_bytes += std::ssize(text) + static_cast<int64_t>(sizeof text);
    return {};
  }

  Result<void> CheckBounds() const {
    for (const int32_t reg : layout_.free_registers) {
      const int64_t value = pending_.registers[static_cast<size_t>(reg)];
      const bool is_batch = reg == layout_.batch;
      const int64_t most = is_batch ? model_.config.max_batch : layout_.most(reg);
      const std::string& name = layout_.program->registers[static_cast<size_t>(reg)].name;
      if (value > most)
        return Fail(
            ErrorCode::kOutOfRange,
            fmt::format("the size '{}' is {}, but at most {} fit a request", name, value, most),
            name);
      if (is_batch && value == 0)
        return Fail(ErrorCode::kInvalidArgument, "the request has no rows", name);
    }
    return {};
  }

  Result<void> FillAll() {
    for (const Fill& fill : layout_.fills) {
      const InputTensor& given = tensor(static_cast<size_t>(fill.port));
      if (fill.lookup != nullptr) {
        std::vector<std::byte> values;
        const Port& from = port(static_cast<size_t>(fill.port));
        const auto found = from.is_string ? fill.lookup->Find(given.strings, values)
                                          : fill.lookup->Find(given.bytes, values);
        if (!found) return Bad(from, found.error().message);
        pending_.bytes.emplace_back(values);
        pending_.looked_up.push_back(std::move(values));
        pending_.size_bytes += std::ssize(pending_.looked_up.back());
        continue;
      }
      pending_.bytes.push_back(given.bytes);
      if (fill.values < 0) continue;
      TRY_ASSIGN(const bool covers, OffsetsCover(fill, given.bytes));
      if (!covers) pending_.alone = true;
    }
    return {};
  }

  // Whether offsets begin at 0 and, with an end, end with the values: only then do they mean the
  // same in company. Errors: kInvalidArgument: they fall, or go past the values, which no bag may.
  Result<bool> OffsetsCover(const Fill& fill, std::span<const std::byte> bytes) const {
    const int64_t total = pending_.registers[static_cast<size_t>(fill.values)];
    const auto size = static_cast<size_t>(SizeBytes(fill.dtype));
    int64_t last = 0;
    bool begins = true;
    for (size_t at = 0; at < bytes.size(); at += size) {
      const int64_t offset = IntegerAt(bytes.data() + at, fill.dtype);
      if (offset < last || offset > total)
        return Fail(ErrorCode::kInvalidArgument, "an offset is " + std::to_string(offset) +
                                                     " after " + std::to_string(last) + ", of " +
                                                     std::to_string(total) + " values");
      if (at == 0) begins = offset == 0;
      last = offset;
    }
    return begins && (fill.joining != Joining::kOffsetsWithEnd || last == total);
  }

  const Model& model_;
  const Signature& signature_;
  const Layout& layout_;
  Pending& pending_;
  std::vector<bool> known_;  // by register
};

}  // namespace

Result<std::unique_ptr<Pending>> MakePending(const Model& model, const Layout& layout,
                                             Request request) {
  auto pending = std::make_unique<Pending>();
  pending->request = std::move(request);
  TRY(Binder(model, layout, *pending).Bind());
  return pending;
}

bool MayJoin(const Layout& layout, const Pending& a, const Pending& b) {
  if (a.alone || b.alone) return false;
  for (const int32_t reg : layout.free_registers) {
    const auto index = static_cast<size_t>(reg);
    if (!layout.adds[index] && a.registers[index] != b.registers[index]) return false;
  }
  for (size_t i = 0; i < layout.fills.size(); ++i) {
    if (layout.fills[i].joining != Joining::kSame) continue;
    const auto x = a.bytes[i], y = b.bytes[i];
    if (x.size() != y.size() || (!x.empty() && std::memcmp(x.data(), y.data(), x.size()) != 0))
      return false;
  }
  return true;
}

}  // namespace millpower::ranking
