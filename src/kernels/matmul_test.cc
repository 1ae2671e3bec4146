#include <algorithm>
#include <cmath>

#include "kernels/test_operands.h"

namespace millpower::kernels {
namespace {

// A random matrix multiply with its operands.
struct Case {
  Case(Rng& rng, int64_t rows, int64_t k, int64_t n, DType type, Epilogue epilogue, bool with_bias,
       bool weight_only = false)
      : w(RandomWeight(rng, n, k, type)), xq(0) {
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
    if (epilogue == Epilogue::kAdd || epilogue == Epilogue::kSiluMul)
      args.residual = residual.data();
    if (IsQuantisedType(type) && !weight_only) {
      xq = QuantiseRows(x.data(), args.x_stride, rows, k, type);
      args.xq = xq.data();
      args.xq_stride_bytes = isa::QuantisedRowBytes(k, QuantisedRowType(type));
    }
  }

  // The activation that the product takes, in float64.
  double X(int64_t row, int64_t step) const {
    if (args.xq == nullptr) return x[static_cast<size_t>(row * args.x_stride + step)];
    const std::byte* bytes = xq.data() + row * args.xq_stride_bytes;
    if (args.weight_type == DType::kF8E4M3)
      return static_cast<double>(Load(bytes, DType::kF32)) *
             static_cast<double>(Load(bytes + 64 + step, DType::kF8E4M3));
    const std::byte* record = xq.data() + row * args.xq_stride_bytes + step / 32 * 48;
    return static_cast<double>(Load(record + 32, DType::kF32)) *
           static_cast<int8_t>(record[step % 32]);
  }

  std::vector<float> Run(const KernelSet& set) {
    std::vector<float> result = y;
    args.y = result.data();
    set.matmul(args, 0, isa::PackedBlocks(args.n));
    return result;
  }

  AlignedBytes w, xq;
  std::vector<float> x, residual, bias, y;
  MatMulArgs args;
};

std::string Describe(const MatMulArgs& args) {
  return std::string(Name(args.weight_type)) +
         (args.xq == nullptr ? " rows " : " x quantised, rows ") + std::to_string(args.rows) +
         " k " + std::to_string(args.k) + " n " + std::to_string(args.n) + " epilogue " +
         std::to_string(static_cast<int>(args.epilogue)) + (args.bias ? " bias" : "");
}

TEST(MatMul, ScalarAgreesWithFloat64) {
  Rng rng(1);
  for (const bool weight_only : {false, true})
    for (DType type : kWeightTypes) {
      if (weight_only && !IsQuantisedType(type)) continue;
      for (Epilogue epilogue : {Epilogue::kNone, Epilogue::kAdd, Epilogue::kSiluGate,
                                Epilogue::kSiluMul, Epilogue::kRelu}) {
        const bool gated = epilogue == Epilogue::kSiluGate;
        Case c(rng, 3, 267, gated ? 64 : 53, type, epilogue, !gated, weight_only);
        // Sums of values in f32 round at every step, and those of random blocks are large.
        const double slack = weight_only && IsBlockType(type) ? 3e-3 : 5e-5;
        const std::vector<float> y = c.Run(ScalarKernels());
        const auto dot = [&](int64_t row, int64_t channel) {
          double sum = 0;
          for (int64_t k = 0; k < c.args.k; ++k)
            sum += c.X(row, k) * WeightElement(c.w.data(), c.args.k, type, channel, k);
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
              if (epilogue == Epilogue::kSiluMul) {
                const double gate =
                    c.residual[static_cast<size_t>(row * c.args.residual_stride + i)];
                expected *= gate / (1 + std::exp(-gate));
              }
              if (epilogue == Epilogue::kRelu) expected = std::max(expected, 0.0);
            }
            EXPECT_NEAR(y[static_cast<size_t>(row * c.args.y_stride + i)], expected,
                        slack + 1e-5 * std::abs(expected))
                << Describe(c.args) << " row " << row << " channel " << i;
          }
        }
      }
    }
}

TEST(MatMul, AllSetsGiveTheScalarBits) {
  Rng rng(2);
  for (int round = 0; round < 300; ++round) {
    const auto epilogue = static_cast<Epilogue>(rng.Below(5));
    const bool gated = epilogue == Epilogue::kSiluGate;
    const DType type = kWeightTypes[rng.Below(std::size(kWeightTypes))];
    const auto rows = static_cast<int64_t>(round % 8 == 0 ? 30 + rng.Below(40) : 1 + rng.Below(20));
    const auto k =
        static_cast<int64_t>(1 + rng.Below(IsQuantisedType(type) || round % 8 == 0 ? 600 : 100));
    const auto n = static_cast<int64_t>(gated ? 32 * (1 + rng.Below(8)) : 1 + rng.Below(300));
    Case c(rng, rows, k, n, type, epilogue, !gated && rng.Below(2), rng.Below(3) == 0);
    const std::vector<float> expected = c.Run(ScalarKernels());
    ForEachSet([&](const KernelSet& set) {
      EXPECT_TRUE(SameBits(c.Run(set), expected)) << Describe(c.args) << " round " << round;
    });
  }
}

// Rows that are computed in several chunks, and reductions in several pieces.
TEST(MatMul, AllSetsGiveTheScalarBitsOfLargeProducts) {
  Rng rng(15);
  for (const DType type : {DType::kF32, DType::kBf16}) {
    for (const int64_t k : {511, 512, 513, 1100, 2300}) {
      for (const Epilogue epilogue : {Epilogue::kRelu, Epilogue::kAdd, Epilogue::kSiluGate}) {
        const bool gated = epilogue == Epilogue::kSiluGate;
        const auto rows = static_cast<int64_t>(9 + rng.Below(420));
        const auto n = static_cast<int64_t>(gated ? 32 : 1 + rng.Below(90));
        Case c(rng, rows, k, n, type, epilogue, !gated);
        const std::vector<float> expected = c.Run(ScalarKernels());
        ForEachSet([&](const KernelSet& set) {
          EXPECT_TRUE(SameBits(c.Run(set), expected)) << Describe(c.args);
        });
      }
    }
  }
}

// The largest sums that a group can come to: every value at its bound, with every sign.
TEST(MatMul, ExtremesDoNotOverflow) {
  Rng rng(12);
  for (DType type : kWeightTypes) {
    if (!IsBlockType(type)) continue;
    for (const int weight : {0, 255}) {
      Case c(rng, 5, 512, 64, type, Epilogue::kNone, false);
      for (size_t i = 0; i < c.x.size(); ++i) c.x[i] = rng.Below(2) ? 1.0f : -1.0f;
      for (int64_t i = 0; i < 512; ++i) c.x[static_cast<size_t>(i)] = 1;  // row 0 all alike
      c.xq = QuantiseRows(c.x.data(), c.args.x_stride, 5, 512, type);
      c.args.xq = c.xq.data();
      const int64_t chunk_bytes = isa::ChunkLines(type) * 64;
      const int64_t values_at = isa::ScaleLines(type) * 64;
      const int value = type == DType::kQ6_K ? weight / 4 : weight;
      for (int64_t at = 0; at < c.w.size_bytes(); at += chunk_bytes)
        std::memset(c.w.data() + at + values_at, value,
                    static_cast<size_t>(chunk_bytes - values_at));
      const std::vector<float> expected = c.Run(ScalarKernels());
      for (int64_t channel = 0; channel < 64; ++channel) {
        double sum = 0;
        for (int64_t k = 0; k < 512; ++k)
          sum += c.X(0, k) * WeightElement(c.w.data(), 512, type, channel, k);
        EXPECT_NEAR(expected[static_cast<size_t>(channel)], sum, 1e-4 * std::abs(sum) + 1e-4);
      }
      ForEachSet([&](const KernelSet& set) {
        EXPECT_TRUE(SameBits(c.Run(set), expected)) << Describe(c.args) << " all " << value;
      });
    }
  }
}

// Entries of one expert in a list: each takes its row, or its choice's part of it, and gives its
// choice's columns of y.
TEST(ExpertMatMul, AllSetsGiveEachEntryWhatARowAloneGets) {
  Rng rng(13);
  for (int round = 0; round < 120; ++round) {
    const DType type = kWeightTypes[rng.Below(std::size(kWeightTypes))];
    const bool gated = rng.Below(2) != 0, per_choice = rng.Below(2) != 0;
    const auto k = static_cast<int64_t>(32 * (1 + rng.Below(9)));
    const auto choices = static_cast<int64_t>(1 + rng.Below(4));
    const auto rows = static_cast<int64_t>(1 + rng.Below(12));
    const auto n = static_cast<int64_t>(16 * (1 + rng.Below(6)));
    const int64_t width = n - static_cast<int64_t>(rng.Below(16));
    const AlignedBytes w = RandomWeight(rng, gated ? 2 * n : n, k, type);
    const int64_t x_cols = per_choice ? choices * k : k;
    const std::vector<float> x = RandomFloats(rng, rows * x_cols);
    // Rows in f8_e4m3 have one scale for all choices.
    const bool quantised =
        IsQuantisedType(type) && !(type == DType::kF8E4M3 && per_choice) && rng.Below(4) != 0;
    const AlignedBytes xq = QuantiseRows(x.data(), x_cols, rows, x_cols, type);
    std::vector<int32_t> entries;
    for (int32_t entry = 0; entry < rows * choices; ++entry)
      if (rng.Below(2)) entries.push_back(entry);
    MatMulArgs args{.x = x.data(),
                    .xq = quantised ? xq.data() : nullptr,
                    .w = w.data(),
                    .rows = std::ssize(entries),
                    .k = k,
                    .n = gated ? 2 * n : n,
                    .x_stride = x_cols,
                    .xq_stride_bytes = isa::QuantisedRowBytes(x_cols, QuantisedRowType(type)),
                    .y_stride = choices * width,
                    .weight_type = type,
                    .epilogue = gated ? Epilogue::kSiluGate : Epilogue::kNone};
    args.entries = {
        .entries = entries.data(), .choices = choices, .width = width, .x_per_choice = per_choice};
    std::vector<float> expected(static_cast<size_t>(rows * choices * width), -7.0f);
    for (const int32_t entry : entries) {
      const int64_t first = per_choice ? entry % choices * k : 0;
      const float* from = x.data() + entry / choices * x_cols + first;
      const AlignedBytes one_xq = QuantiseRows(from, k, 1, k, type);
      std::vector<float> y(static_cast<size_t>(n));
      MatMulArgs one = args;
      one.entries = {};
      one.x = from;
      one.xq = quantised ? one_xq.data() : nullptr;
      one.rows = 1;
      one.y = y.data();
      ScalarKernels().matmul(one, 0, isa::PackedBlocks(one.n));
      std::copy_n(y.begin(), width, expected.begin() + entry * width);
    }
    ForEachSet([&](const KernelSet& set) {
      std::vector<float> y(expected.size(), -7.0f);
      args.y = y.data();
      set.matmul(args, 0, isa::PackedBlocks(args.n));
      EXPECT_TRUE(SameBits(y, expected)) << Describe(args) << " round " << round;
    });
  }
}

TEST(MatMul, ReluKeepsNan) {
  Rng rng(14);
  Case c(rng, 3, 4, 20, DType::kF32, Epilogue::kRelu, true);
  c.bias[1] = NAN;
  c.bias[2] = -INFINITY;
  c.bias[3] = INFINITY;
  ForEachSet([&](const KernelSet& set) {
    const std::vector<float> y = c.Run(set);
    EXPECT_TRUE(std::isnan(y[1]));
    EXPECT_EQ(y[2], 0);
    EXPECT_EQ(y[3], INFINITY);
  });
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
    for (DType type : {DType::kBf16, DType::kQ8_0, DType::kQ4_K, DType::kF8E4M3}) {
      Case c(rng, 17, 75, gated ? 608 : 601, type, epilogue, false);
      const std::vector<float> expected = c.Run(ScalarKernels());
      const int64_t blocks = isa::PackedBlocks(c.args.n);
      ForEachSet([&](const KernelSet& set) {
        std::vector<float> y = c.y;
        for (int64_t row = 0; row < c.args.rows; ++row) {
          MatMulArgs one = c.args;
          one.rows = 1;
          one.x = c.x.data() + row * c.args.x_stride;
          if (c.args.xq != nullptr) one.xq = c.args.xq + row * c.args.xq_stride_bytes;
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
  for (DType type : kWeightTypes) {
    const int64_t n = 37, k = IsBlockType(type) ? 277 : 21;
    const AlignedBytes w = RandomWeight(rng, n, k, type);
    ForEachSet([&](const KernelSet& set) {
      for (int64_t row = 0; row < n; ++row) {
        std::vector<float> y(static_cast<size_t>(k));
        set.gather_packed(w.data(), type, k, row, y.data());
        for (int64_t step = 0; step < k; ++step)
          EXPECT_NEAR(y[static_cast<size_t>(step)], WeightElement(w.data(), k, type, row, step),
                      IsQuantisedType(type) ? 1e-5 : 0);
      }
    });
  }
}

}  // namespace
}  // namespace millpower::kernels
