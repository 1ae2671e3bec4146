// One instruction on tensors, run alone: for the tests of this folder.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/rng.h"
#include "base/tensor_ops.h"
#include "device/cpu/steps.h"
#include "device/cpu/tensor/tensor_steps.h"
#include "isa/program.h"
#include "kernels/kernels.h"

namespace millpower::device::cpu {

// Values of an operand, row-major.
template <typename T>
using Values = std::vector<T>;

// Builds a Program of one instruction by hand, and runs its step in pieces. Buffers have exactly
// their size, so that AddressSanitizer sees any access beyond.
class TestInstruction {
 public:
  explicit TestInstruction(isa::Opcode op) { in_.op = op; }

  // A dimension that is known at launch.
  isa::Dim Register(int64_t value, int64_t max) {
    program_.registers.push_back({"r" + std::to_string(program_.registers.size()), max});
    frame_.registers.push_back(value);
    return {static_cast<int32_t>(program_.registers.size() - 1), 0};
  }
  static std::vector<isa::Dim> Dims(const std::vector<int64_t>& sizes) {
    std::vector<isa::Dim> dims;
    for (const int64_t size : sizes) dims.push_back({-1, size});
    return dims;
  }

  // An operand that is a tensor of `dims`, holding `bytes`.
  void Tensor(int operand, DType dtype, const std::vector<isa::Dim>& dims,
              std::vector<std::byte> bytes) {
    isa::Operand& to = Add(operand, {.dtype = dtype, .rows = {-1, 1}}, std::move(bytes));
    to.shape = static_cast<int32_t>(program_.shapes.size());
    program_.shapes.push_back(dims);
  }
  template <typename T>
  void Tensor(int operand, DType dtype, const std::vector<int64_t>& sizes,
              const std::vector<T>& values) {
    Tensor(operand, dtype, Dims(sizes), BytesOf(values));
  }

  // Columns [begin, begin + cols) of a matrix of `width`, of which `values` are all elements.
  template <typename T>
  void Matrix(int operand, DType dtype, int64_t rows, int64_t width, int64_t begin, int64_t cols,
              const std::vector<T>& values) {
    isa::Operand& to =
        Add(operand, {.dtype = dtype, .rows = {-1, rows}, .cols = width}, BytesOf(values));
    to.begin = begin;
    to.cols = cols;
  }

  // A table of embeddings.
  void Table(int operand, DType dtype, int64_t rows, int64_t cols, std::vector<std::byte> bytes) {
    Add(operand,
        {.name = "table",
         .form = isa::Form::kTable,
         .dtype = dtype,
         .rows = {-1, rows},
         .cols = cols},
        std::move(bytes));
  }

  // A packed weight of f32.
  void Packed(int operand, int64_t n, int64_t k, std::vector<std::byte> bytes) {
    Add(operand, {.name = "w", .form = isa::Form::kPacked, .rows = {-1, n}, .cols = k},
        std::move(bytes));
  }

  void Integer(int attribute, int64_t value) {
    in_.attributes[static_cast<size_t>(attribute)] = value;
  }
  void List(int attribute, std::vector<int64_t> values) {
    Integer(attribute, std::ssize(program_.lists));
    program_.lists.push_back(std::move(values));
  }
  void Sizes(int attribute, const std::vector<isa::Dim>& dims) {
    Integer(attribute, std::ssize(program_.shapes));
    program_.shapes.push_back(dims);
  }

  // Runs all units as `threads` would, in pieces from `rng`, with the given kernels.
  void Run(const kernels::KernelSet& set, Rng& rng, int threads = 3) {
    std::vector<std::byte*> buffers;
    for (auto& bytes : bytes_) buffers.push_back(bytes.get());
    faults_.Clear();
    const StepContext context{program_, set, buffers, {}, {}, faults_, threads};
    const std::unique_ptr<Step> step = MakeStep(context, in_);
    const int64_t units = step->Units(frame_);
    CHECK(units == 0 || step->UnitCost(frame_) >= 0) << "a negative cost";
    for (int64_t begin = 0; begin < units;) {
      const auto size = static_cast<int64_t>(1 + rng.Below(static_cast<uint64_t>(units)));
      const int64_t end = std::min(units, begin + size);
      step->Run(frame_, begin, end, static_cast<int>(rng.Below(static_cast<uint64_t>(threads))));
      begin = end;
    }
    const auto checked = faults_.Check();
    fault_ = checked ? "" : checked.error().message;
  }

  // All elements of an operand's buffer.
  template <typename T>
  std::vector<T> Read(int operand) const {
    const auto buffer = static_cast<size_t>(in_.operand(operand).buffer);
    std::vector<T> values(sizes_[buffer] / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), bytes_[buffer].get(), sizes_[buffer]);
    return values;
  }
  template <typename T>
  void Write(int operand, const std::vector<T>& values) {
    const auto buffer = static_cast<size_t>(in_.operand(operand).buffer);
    CHECK(values.size() * sizeof(T) == sizes_[buffer]) << "another size";
    if (!values.empty()) std::memcpy(bytes_[buffer].get(), values.data(), sizes_[buffer]);
  }
  // What went wrong in the last Run; empty when nothing did.
  const std::string& Fault() const { return fault_; }

  template <typename T>
  static std::vector<std::byte> BytesOf(const std::vector<T>& values) {
    std::vector<std::byte> bytes(values.size() * sizeof(T));
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }

 private:
  isa::Operand& Add(int operand, isa::Buffer buffer, std::vector<std::byte> bytes) {
    if (buffer.name.empty()) buffer.name = "b" + std::to_string(program_.buffers.size());
    isa::Operand& to = in_.operands[static_cast<size_t>(operand)];
    to.buffer = static_cast<int32_t>(program_.buffers.size());
    to.cols = buffer.cols;
    sizes_.push_back(bytes.size());
    bytes_.emplace_back(new (std::align_val_t{64}) std::byte[bytes.size()]);
    std::copy(bytes.begin(), bytes.end(), bytes_.back().get());
    program_.buffers.push_back(std::move(buffer));
    return to;
  }

  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };

  isa::Program program_;
  isa::Instruction in_;
  Frame frame_;
  Faults faults_;
  std::string fault_;
  std::vector<std::unique_ptr<std::byte[], Free>> bytes_;  // by buffer
  std::vector<size_t> sizes_;
};

}  // namespace millpower::device::cpu
