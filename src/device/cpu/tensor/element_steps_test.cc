// Element-wise and row-wise instructions as steps: operands with and without shapes, columns of
// wider buffers, sizes that are registers, and units in any order and company.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/expression.h"
#include "base/rng.h"
#include "base/tensor_ops.h"
#include "device/cpu/tensor/tensor_steps.h"

namespace millpower::device::cpu {
namespace {

using isa::Dim;
using isa::Instruction;
using isa::Opcode;
using isa::Operand;

// A Program put together by hand, with memory for its buffers at their bounds.
class Bench {
 public:
  int32_t AddRegister(int64_t max, int64_t value) {
    program_.registers.push_back({.name = "r", .max = max});
    frame_.registers.push_back(value);
    return static_cast<int32_t>(program_.registers.size() - 1);
  }
  // Random floats, small integers, bytes of bools.
  int32_t AddBuffer(DType dtype, Dim rows, int64_t cols) {
    program_.buffers.push_back({.name = "b", .dtype = dtype, .rows = rows, .cols = cols});
    const int64_t count = program_.Max(rows) * cols;
    std::vector<std::byte> bytes(static_cast<size_t>(count * SizeBytes(dtype)));
    for (int64_t i = 0; i < count; ++i) {
      std::byte* at = bytes.data() + i * SizeBytes(dtype);
      const float value = rng_.Uniform(-3, 3);
      const uint16_t half = F32ToF16(value);
      const auto whole = static_cast<int64_t>(rng_.Below(dtype == DType::kBool ? 2 : 50));
      if (dtype == DType::kF32)
        std::memcpy(at, &value, sizeof value);
      else if (dtype == DType::kF16)
        std::memcpy(at, &half, sizeof half);
      else
        std::memcpy(at, &whole, static_cast<size_t>(SizeBytes(dtype)));
    }
    memory_.push_back(std::move(bytes));
    return static_cast<int32_t>(program_.buffers.size() - 1);
  }
  int32_t AddShape(std::vector<Dim> dims) {
    program_.shapes.push_back(std::move(dims));
    return static_cast<int32_t>(program_.shapes.size() - 1);
  }
  int64_t AddList(std::vector<int64_t> list) {
    program_.lists.push_back(std::move(list));
    return static_cast<int64_t>(program_.lists.size() - 1);
  }
  Operand Whole(int32_t buffer, int32_t shape = -1) const {
    return {buffer, 0, program_.buffers[static_cast<size_t>(buffer)].cols, shape};
  }
  template <typename T>
  T* Data(int32_t buffer) {
    return reinterpret_cast<T*>(memory_[static_cast<size_t>(buffer)].data());
  }

  // Runs the instruction with each set: at once, and in ranges from the back by several threads'
  // scratch. The bytes of `y` must be the same; they stay in the buffer.
  void Run(const Instruction& in, int32_t y) {
    std::vector<std::byte> expected;
    const std::vector<std::byte> before = memory_[static_cast<size_t>(y)];
    for (const kernels::KernelSet* set : kernels::AvailableKernels())
      for (const int64_t range : {int64_t{1} << 40, int64_t{7}, int64_t{1}}) {
        memory_[static_cast<size_t>(y)] = before;
        std::vector<std::byte*> pointers;
        for (std::vector<std::byte>& bytes : memory_) pointers.push_back(bytes.data());
        const StepContext context{.program = program_,
                                  .kernels = *set,
                                  .buffers = pointers,
                                  .work_lists = {},
                                  .samplers = {},
                                  .faults = faults_,
                                  .threads = 3};
        const std::unique_ptr<Step> step = MakeStep(context, in);
        ASSERT_NE(step, nullptr);
        const int64_t units = step->Units(frame_);
        EXPECT_GT(step->UnitCost(frame_), 0);
        for (int64_t end = units; end > 0; end -= range)
          step->Run(frame_, std::max<int64_t>(0, end - range), end, static_cast<int>(end % 3));
        if (expected.empty()) expected = memory_[static_cast<size_t>(y)];
        ASSERT_EQ(memory_[static_cast<size_t>(y)], expected) << set->name << " by " << range;
      }
  }

 private:
  isa::Program program_;
  Frame frame_;
  Faults faults_;
  std::vector<std::vector<std::byte>> memory_;
  Rng rng_{1};
};

Dim Constant(int64_t size) { return {-1, size}; }

int64_t Bits(double value) { return std::bit_cast<int64_t>(value); }

// relu(x + bias) of a batch whose size is a register, then a size term.
TEST(MapStep, OfABatch) {
  Bench bench;
  const int32_t batch = bench.AddRegister(40, 33);
  const Dim rows{batch, 0};
  const int32_t x = bench.AddBuffer(DType::kF32, rows, 6 * 50);
  const int32_t bias = bench.AddBuffer(DType::kF32, Constant(1), 50);
  const int32_t y = bench.AddBuffer(DType::kF32, rows, 6 * 50);
  const int32_t shape = bench.AddShape({rows, Constant(6), Constant(50)});
  const int32_t bias_shape = bench.AddShape({Constant(50)});
  Expression e;
  const int16_t sum =
      e.Apply(MapOp::kAdd, DType::kF32, {e.Load(0, DType::kF32), e.Load(1, DType::kF32)});
  const int16_t size = e.Apply(MapOp::kCast, DType::kF32, {e.Size(1)});
  e.Apply(MapOp::kMul, DType::kF32, {e.Apply(MapOp::kRelu, DType::kF32, {sum}), size});

  Instruction in{.op = Opcode::kMap};
  in.operands[isa::map::kX0] = bench.Whole(x, shape);
  in.operands[isa::map::kX0 + 1] = bench.Whole(bias, bias_shape);
  in.operands[isa::map::kY] = bench.Whole(y, shape);
  in.attributes[isa::map::kCode] = bench.AddList(e.Encode());
  in.attributes[isa::map::kSizes] = bench.AddShape({Constant(9), rows});
  const std::vector<float> beyond(bench.Data<float>(y) + 33 * 300, bench.Data<float>(y) + 12000);
  bench.Run(in, y);
  for (int64_t i = 0; i < 33 * 300; ++i) {
    const float value = bench.Data<float>(x)[i] + bench.Data<float>(bias)[i % 50];
    ASSERT_EQ(bench.Data<float>(y)[i], (value < 0 ? 0 : value) * 33) << i;
  }
  // Nothing is written beyond the batch.
  EXPECT_EQ(beyond,
            std::vector<float>(bench.Data<float>(y) + 33 * 300, bench.Data<float>(y) + 12000));
}

// Columns of wider buffers, without shapes, next to a scalar with one.
TEST(MapStep, OfColumns) {
  Bench bench;
  const Dim rows{bench.AddRegister(300, 300), 0};
  const int32_t x = bench.AddBuffer(DType::kF32, rows, 20);
  const int32_t scale = bench.AddBuffer(DType::kF32, Constant(1), 1);
  const int32_t y = bench.AddBuffer(DType::kF32, rows, 11);
  Expression e;
  e.Apply(MapOp::kMul, DType::kF32, {e.Load(0, DType::kF32), e.Load(1, DType::kF32)});
  Instruction in{.op = Opcode::kMap};
  in.operands[isa::map::kX0] = {x, 4, 7, -1};
  in.operands[isa::map::kX0 + 1] = bench.Whole(scale, bench.AddShape({}));
  in.operands[isa::map::kY] = {y, 2, 7, -1};
  in.attributes[isa::map::kCode] = bench.AddList(e.Encode());
  in.attributes[isa::map::kSizes] = bench.AddShape({});
  const std::vector<float> before(bench.Data<float>(y), bench.Data<float>(y) + 3300);
  bench.Run(in, y);
  for (int64_t row = 0; row < 300; ++row)
    for (int64_t col = 0; col < 11; ++col) {
      const float expected = col < 2 || col >= 9 ? before[static_cast<size_t>(row * 11 + col)]
                                                 : bench.Data<float>(x)[row * 20 + 2 + col] *
                                                       bench.Data<float>(scale)[0];
      ASSERT_EQ(bench.Data<float>(y)[row * 11 + col], expected) << row << " " << col;
    }
}

TEST(MapStep, OfNothing) {
  Bench bench;
  const Dim rows{bench.AddRegister(10, 0), 0};
  const int32_t y = bench.AddBuffer(DType::kI64, rows, 3);
  Expression e;
  e.Index(0);
  Instruction in{.op = Opcode::kMap};
  in.operands[isa::map::kY] = bench.Whole(y);
  in.attributes[isa::map::kCode] = bench.AddList(e.Encode());
  in.attributes[isa::map::kSizes] = bench.AddShape({});
  bench.Run(in, y);
}

TEST(ReduceStep, OverFieldsAndOverAll) {
  Bench bench;
  const Dim rows{bench.AddRegister(30, 21), 0};
  const int32_t x = bench.AddBuffer(DType::kF32, rows, 26 * 40);
  const int32_t y = bench.AddBuffer(DType::kF32, rows, 40);
  const int32_t total = bench.AddBuffer(DType::kI64, Constant(1), 40);
  const int32_t shape = bench.AddShape({rows, Constant(26), Constant(40)});
  Instruction in{.op = Opcode::kReduce};
  in.operands[isa::reduce::kX] = bench.Whole(x, shape);
  in.operands[isa::reduce::kY] = bench.Whole(y, bench.AddShape({rows, Constant(1), Constant(40)}));
  in.attributes[isa::reduce::kKind] = static_cast<int64_t>(Reduction::kMean);
  in.attributes[isa::reduce::kAxes] = bench.AddList({1});
  const auto check = [&] {
    for (int64_t row = 0; row < 21; ++row)
      for (int64_t col = 0; col < 40; ++col) {
        double sum = 0;
        for (int64_t field = 0; field < 26; ++field)
          sum += bench.Data<float>(x)[(row * 26 + field) * 40 + col];
        ASSERT_FLOAT_EQ(bench.Data<float>(y)[row * 40 + col], static_cast<float>(sum / 26));
      }
  };
  bench.Run(in, y);
  check();
  // The result without the axis of 1, as a matrix.
  in.operands[isa::reduce::kY] = bench.Whole(y);
  bench.Run(in, y);
  check();

  // Where the largest of each of some columns is.
  in.operands[isa::reduce::kX] = {x, 100, 40, -1};
  in.operands[isa::reduce::kY] = bench.Whole(total);
  in.attributes[isa::reduce::kKind] = static_cast<int64_t>(Reduction::kArgMax);
  in.attributes[isa::reduce::kAxes] = bench.AddList({0});
  bench.Run(in, total);
  for (int64_t col = 0; col < 40; ++col) {
    int64_t best = 0;
    for (int64_t row = 1; row < 21; ++row)
      if (bench.Data<float>(x)[row * 1040 + 100 + col] >
          bench.Data<float>(x)[best * 1040 + 100 + col])
        best = row;
    ASSERT_EQ(bench.Data<int64_t>(total)[col], best);
  }
}

TEST(CumulateStep, OfOffsets) {
  Bench bench;
  const Dim rows{bench.AddRegister(100, 77), 0};
  const int32_t x = bench.AddBuffer(DType::kI64, rows, 1);
  const int32_t y = bench.AddBuffer(DType::kI64, rows, 1);
  Instruction in{.op = Opcode::kCumulate};
  in.operands[isa::cumulate::kX] = bench.Whole(x, bench.AddShape({rows}));
  in.operands[isa::cumulate::kY] = bench.Whole(y, bench.AddShape({rows}));
  in.attributes[isa::cumulate::kKind] = static_cast<int64_t>(Reduction::kSum);
  in.attributes[isa::cumulate::kExclusive] = 1;
  bench.Run(in, y);
  int64_t sum = 0;
  for (int64_t i = 0; i < 77; ++i) {
    ASSERT_EQ(bench.Data<int64_t>(y)[i], sum);
    sum += bench.Data<int64_t>(x)[i];
  }
}

TEST(SoftmaxStep, OfFloatsAndHalves) {
  for (const DType type : {DType::kF32, DType::kF16}) {
    Bench bench;
    const Dim rows{bench.AddRegister(50, 41), 0};
    const int32_t x = bench.AddBuffer(type, rows, 2 * 19);
    const int32_t y = bench.AddBuffer(type, rows, 2 * 19);
    const int32_t shape = bench.AddShape({rows, Constant(2), Constant(19)});
    Instruction in{.op = Opcode::kSoftmax};
    in.operands[isa::softmax::kX] = bench.Whole(x, shape);
    in.operands[isa::softmax::kY] = bench.Whole(y, shape);
    bench.Run(in, y);
    const auto at = [&](int32_t buffer, int64_t i) {
      return static_cast<double>(type == DType::kF32 ? bench.Data<float>(buffer)[i]
                                                     : F16ToF32(bench.Data<uint16_t>(buffer)[i]));
    };
    for (int64_t row = 0; row < 82; ++row) {
      double sum = 0;
      for (int64_t i = 0; i < 19; ++i) sum += std::exp(at(x, row * 19 + i));
      for (int64_t i = 0; i < 19; ++i)
        ASSERT_NEAR(at(y, row * 19 + i), std::exp(at(x, row * 19 + i)) / sum,
                    type == DType::kF32 ? 1e-6 : 5e-4);
    }
  }
}

TEST(LayerNormStep, OfColumns) {
  for (const bool scaled : {false, true}) {
    Bench bench;
    const Dim rows{bench.AddRegister(50, 50), 0};
    const int32_t x = bench.AddBuffer(DType::kF32, rows, 80);
    const int32_t weight = bench.AddBuffer(DType::kF32, Constant(1), 70);
    const int32_t bias = bench.AddBuffer(DType::kF32, Constant(1), 70);
    Instruction in{.op = Opcode::kLayerNorm};
    in.operands[isa::layer_norm::kX] = {x, 3, 70, -1};
    const int32_t vector = bench.AddShape({Constant(70)});
    if (scaled) {
      in.operands[isa::layer_norm::kWeight] = bench.Whole(weight, vector);
      in.operands[isa::layer_norm::kBias] = bench.Whole(bias, vector);
    }
    const int32_t y = bench.AddBuffer(DType::kF32, rows, 75);
    in.operands[isa::layer_norm::kY] = {y, 5, 70, -1};
    in.attributes[isa::layer_norm::kEpsilon] = Bits(1e-5);
    bench.Run(in, y);
    for (int64_t row = 0; row < 50; ++row) {
      const float* values = bench.Data<float>(x) + row * 80 + 3;
      double mean = 0, variance = 0;
      for (int64_t i = 0; i < 70; ++i) mean += values[i] / 70.0;
      for (int64_t i = 0; i < 70; ++i) variance += (values[i] - mean) * (values[i] - mean) / 70;
      for (int64_t i = 0; i < 70; ++i) {
        double expected = (values[i] - mean) / std::sqrt(variance + 1e-5);
        if (scaled) expected = expected * bench.Data<float>(weight)[i] + bench.Data<float>(bias)[i];
        ASSERT_NEAR(bench.Data<float>(y)[row * 75 + 5 + i], expected, 2e-6);
      }
    }
  }
}

}  // namespace
}  // namespace millpower::device::cpu
