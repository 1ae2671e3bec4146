#include <cmath>

#include "kernels/test_operands.h"

namespace millpower::kernels {
namespace {

// A random matrix multiply with its operands.
struct Case {
  Case(Rng& rng, int64_t rows, int64_t k, int64_t n, DType type, Epilogue epilogue, bool with_bias)
      : w(RandomWeight(rng, n, k, type)) {
    args.rows = rows;
    args.k = k;
    args.n = n;
    args.weight_type = type;
    args.epilogue = epilogue;
    const int64_t out = epilogue == Epilogue::kSiluGate ? n / 2 : n;
    args.x_stride = k + static_cast<int64_t>(rng.Below(3));
    args.y_stride = out + static_cast<int64_t>(rng.Below(3));
    args.residual_stride = out + static_cast<int64_t>(rng.Below(3));
    x = RandomFloats(rng, (rows - 1) * args.x_stride + k);
    residual = RandomFloats(rng, (rows - 1) * args.residual_stride + out);
    bias = RandomFloats(rng, n);
    y.assign(static_cast<size_t>((rows - 1) * args.y_stride + out), -7.0f);
    args.x = x.data();
    args.w = w.data();
    if (with_bias) args.bias = bias.data();
    if (epilogue == Epilogue::kAdd) args.residual = residual.data();
  }

  std::vector<float> Run(const KernelSet& set) {
    std::vector<float> result = y;
    args.y = result.data();
    set.matmul(args, 0, isa::PackedBlocks(args.n));
    return result;
  }

  AlignedBytes w;
  std::vector<float> x, residual, bias, y;
  MatMulArgs args;
};

std::string Describe(const MatMulArgs& args) {
  return std::string(Name(args.weight_type)) + " rows " + std::to_string(args.rows) + " k " +
         std::to_string(args.k) + " n " + std::to_string(args.n) + " epilogue " +
         std::to_string(static_cast<int>(args.epilogue)) + (args.bias ? " bias" : "");
}

TEST(MatMul, ScalarAgreesWithFloat64) {
  Rng rng(1);
  for (DType type : {DType::kF32, DType::kBf16}) {
    for (Epilogue epilogue : {Epilogue::kNone, Epilogue::kAdd, Epilogue::kSiluGate}) {
      const bool gated = epilogue == Epilogue::kSiluGate;
      Case c(rng, 3, 67, gated ? 64 : 53, type, epilogue, !gated);
      const std::vector<float> y = c.Run(ScalarKernels());
      const auto dot = [&](int64_t row, int64_t channel) {
        double sum = 0;
        for (int64_t k = 0; k < c.args.k; ++k)
          sum += static_cast<double>(c.x[static_cast<size_t>(row * c.args.x_stride + k)]) *
                 Load(c.w.data() + isa::PackedOffset(channel, k, c.args.k, type), type);
        return sum;
      };
      for (int64_t row = 0; row < c.args.rows; ++row) {
        for (int64_t i = 0; i < (gated ? c.args.n / 2 : c.args.n); ++i) {
          double expected;
          if (gated) {
            const int64_t gate_channel = i / 16 * 32 + i % 16;
            const double gate = dot(row, gate_channel);
            expected = gate / (1 + std::exp(-gate)) * dot(row, gate_channel + 16);
          } else {
            expected = dot(row, i) + c.bias[static_cast<size_t>(i)];
            if (epilogue == Epilogue::kAdd)
              expected += c.residual[static_cast<size_t>(row * c.args.residual_stride + i)];
          }
          EXPECT_NEAR(y[static_cast<size_t>(row * c.args.y_stride + i)], expected, 2e-5)
              << Describe(c.args) << " row " << row << " channel " << i;
        }
      }
    }
  }
}

TEST(MatMul, AllSetsGiveTheScalarBits) {
  Rng rng(2);
  for (int round = 0; round < 300; ++round) {
    const auto epilogue = static_cast<Epilogue>(rng.Below(3));
    const bool gated = epilogue == Epilogue::kSiluGate;
    const DType type = rng.Below(2) ? DType::kF32 : DType::kBf16;
    const auto rows = static_cast<int64_t>(1 + rng.Below(20));
    const auto k = static_cast<int64_t>(1 + rng.Below(100));
    const auto n = static_cast<int64_t>(gated ? 32 * (1 + rng.Below(8)) : 1 + rng.Below(300));
    Case c(rng, rows, k, n, type, epilogue, !gated && rng.Below(2));
    const std::vector<float> expected = c.Run(ScalarKernels());
    ForEachSet([&](const KernelSet& set) {
      EXPECT_TRUE(SameBits(c.Run(set), expected)) << Describe(c.args) << " round " << round;
    });
  }
}

TEST(MatMul, ResidualMayBeTheOutput) {
  Rng rng(3);
  for (int64_t n : {16, 100, 200}) {
    Case c(rng, 5, 33, n, DType::kBf16, Epilogue::kAdd, false);
    c.args.residual_stride = c.args.y_stride;
    c.residual = RandomFloats(rng, static_cast<int64_t>(c.y.size()));
    c.args.residual = c.residual.data();
    c.y = c.residual;  // so that the columns between rows agree as well
    const std::vector<float> expected = c.Run(ScalarKernels());
    ForEachSet([&](const KernelSet& set) {
      std::vector<float> y = c.residual;
      MatMulArgs args = c.args;
      args.residual = args.y = y.data();
      set.matmul(args, 0, isa::PackedBlocks(n));
      EXPECT_TRUE(SameBits(y, expected)) << Describe(args);
    });
  }
}

TEST(MatMul, BitsDoNotDependOnRowsInACallOrTheSplitOfBlocks) {
  Rng rng(4);
  for (Epilogue epilogue : {Epilogue::kNone, Epilogue::kAdd, Epilogue::kSiluGate}) {
    const bool gated = epilogue == Epilogue::kSiluGate;
    Case c(rng, 17, 75, gated ? 608 : 601, DType::kBf16, epilogue, false);
    const std::vector<float> expected = c.Run(ScalarKernels());
    const int64_t blocks = isa::PackedBlocks(c.args.n);
    ForEachSet([&](const KernelSet& set) {
      std::vector<float> y = c.y;
      for (int64_t row = 0; row < c.args.rows; ++row) {
        MatMulArgs one = c.args;
        one.rows = 1;
        one.x = c.x.data() + row * c.args.x_stride;
        one.y = y.data() + row * c.args.y_stride;
        if (epilogue == Epilogue::kAdd)
          one.residual = c.residual.data() + row * c.args.residual_stride;
        set.matmul(one, 0, blocks);
      }
      EXPECT_TRUE(SameBits(y, expected)) << "one by one";

      y = c.y;
      MatMulArgs split = c.args;
      split.y = y.data();
      for (int64_t begin = 0; begin < blocks;) {
        int64_t end = begin + 1 + static_cast<int64_t>(rng.Below(12));
        if (gated && (end - begin) % 2 != 0) ++end;
        end = std::min(end, blocks);
        set.matmul(split, begin, end);
        begin = end;
      }
      EXPECT_TRUE(SameBits(y, expected)) << "split";
    });
  }
}

// What lies beyond the last step of an odd k must not count, even as 0 * infinity or -0 + 0.
TEST(MatMul, PaddingIsNotRead) {
  Rng rng(5);
  Case c(rng, 7, 9, 16, DType::kBf16, Epilogue::kNone, false);
  const std::vector<float> expected = c.Run(ScalarKernels());
  for (int64_t lane = 0; lane < 16; ++lane)
    Store(NAN, c.w.data() + isa::PackedOffset(lane, 9, 9, DType::kBf16), DType::kBf16);
  ForEachSet([&](const KernelSet& set) { EXPECT_TRUE(SameBits(c.Run(set), expected)); });
}

TEST(GatherPacked, GivesTheRowBack) {
  Rng rng(6);
  for (DType type : {DType::kF32, DType::kBf16}) {
    const int64_t n = 37, k = 21;
    const AlignedBytes w = RandomWeight(rng, n, k, type);
    ForEachSet([&](const KernelSet& set) {
      for (int64_t row = 0; row < n; ++row) {
        std::vector<float> y(static_cast<size_t>(k));
        set.gather_packed(w.data(), type, k, row, y.data());
        for (int64_t step = 0; step < k; ++step)
          EXPECT_EQ(y[static_cast<size_t>(step)],
                    Load(w.data() + isa::PackedOffset(row, step, k, type), type));
      }
    });
  }
}

}  // namespace
}  // namespace millpower::kernels
