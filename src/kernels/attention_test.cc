#include <algorithm>
#include <cmath>

#include "kernels/test_operands.h"

namespace millpower::kernels {
namespace {

// As KvAppend stores a head: one scale for all of it.
void RoundToI8(std::vector<float>& values) {
  float a = 0;
  for (const float value : values) a = std::max(a, std::abs(value));
  for (float& value : values) value = std::nearbyint(value * (127 / a)) * (a / 127);
}

// One sequence in a pool of scattered pages; slots that hold no position are NaN.
struct Case {
  Case(Rng& rng, int64_t query_rows, int64_t group, int64_t head_dim, int64_t first_position,
       DType type)
      : Case(rng, query_rows, group, head_dim, first_position, type,
             1 + static_cast<int64_t>(rng.Below(3))) {}

  Case(Rng& rng, int64_t query_rows, int64_t group, int64_t head_dim, int64_t first_position,
       DType type, int64_t kv_heads)
      : kv_heads(kv_heads),
        positions(first_position + query_rows),
        page_count((positions + isa::kPagePositions - 1) / isa::kPagePositions),
        pool(isa::KvPageBytes(kv_heads, head_dim, type) * page_count * 2) {
    args.query_rows = query_rows;
    args.group = group;
    args.head_dim = head_dim;
    args.first_position = first_position;
    args.kv_type = type;
    args.scale = 1 / std::sqrt(static_cast<float>(head_dim));
    args.page_bytes = isa::KvPageBytes(kv_heads, head_dim, type);
    const int64_t kv_head = static_cast<int64_t>(rng.Below(static_cast<uint64_t>(kv_heads)));
    args.head_offset_bytes = kv_head * isa::KvHeadBytes(head_dim, type);
    args.q_stride = group * head_dim + static_cast<int64_t>(rng.Below(5));
    args.out_stride = group * head_dim + static_cast<int64_t>(rng.Below(5));

    // The sequence takes a random half of the pool.
    std::vector<int32_t> order(static_cast<size_t>(page_count * 2));
    for (size_t i = 0; i < order.size(); ++i) {
      const size_t j = rng.Below(i + 1);
      order[i] = order[j];
      order[j] = static_cast<int32_t>(i);
    }
    pages.assign(order.begin(), order.begin() + page_count);
    const DType filler = type == DType::kI8 ? DType::kF32 : type;  // NaN scales
    for (int64_t at = 0; at < pool.size_bytes(); at += SizeBytes(filler))
      Store(NAN, pool.data() + at, filler);

    for (int64_t p = 0; p < positions; ++p) {
      k.push_back(RandomFloats(rng, kv_heads * head_dim, -2, 2));
      v.push_back(RandomFloats(rng, kv_heads * head_dim, -2, 2));
      KvAppendArgs append;
      append.k = k.back().data();
      append.v = v.back().data();
      append.page =
          pool.data() + pages[static_cast<size_t>(p / isa::kPagePositions)] * args.page_bytes;
      append.slot = p % isa::kPagePositions;
      append.kv_heads = kv_heads;
      append.head_dim = head_dim;
      append.kv_type = type;
      ScalarKernels().kv_append(append);
      for (auto* values : {&k.back(), &v.back()}) {
        values->erase(values->begin(), values->begin() + kv_head * head_dim);
        values->resize(static_cast<size_t>(head_dim));
        if (type == DType::kBf16)
          for (float& value : *values) value = Bf16ToF32(F32ToBf16(value));
        if (type == DType::kF8E4M3)
          for (float& value : *values) value = F8E4M3ToF32(F32ToF8E4M3(value));
        if (type == DType::kI8) RoundToI8(*values);
      }
    }
    q = RandomFloats(rng, (query_rows - 1) * args.q_stride + group * head_dim, -3, 3);
    out.assign(static_cast<size_t>((query_rows - 1) * args.out_stride + group * head_dim), -7.0f);
    args.q = q.data();
    args.kv = pool.data();
    args.pages = pages.data();
  }

  // Makes a NaN of all that positions below `end` hold.
  void Spoil(int64_t end) {
    const std::vector<float> nan(static_cast<size_t>(args.page_bytes), NAN);
    for (int64_t p = 0; p < end; ++p)
      ScalarKernels().kv_append(
          {.k = nan.data(),
           .v = nan.data(),
           .page =
               pool.data() + pages[static_cast<size_t>(p / isa::kPagePositions)] * args.page_bytes,
           .slot = p % isa::kPagePositions,
           .kv_heads = kv_heads,
           .head_dim = args.head_dim,
           .kv_type = args.kv_type});
  }

  std::vector<float> Run(const KernelSet& set) {
    std::vector<float> result = out;
    args.out = result.data();
    set.attention(args);
    return result;
  }

  int64_t kv_heads;
  int64_t positions;
  int64_t page_count;
  AlignedBytes pool;
  std::vector<int32_t> pages;
  std::vector<std::vector<float>> k, v;  // [position][head_dim] of the one KV head
  std::vector<float> q, out;
  AttentionArgs args;
};

std::string Describe(const AttentionArgs& args) {
  return std::string(Name(args.kv_type)) + " rows " + std::to_string(args.query_rows) + " group " +
         std::to_string(args.group) + " head_dim " + std::to_string(args.head_dim) + " first " +
         std::to_string(args.first_position) + " window " + std::to_string(args.window);
}

TEST(Attention, ScalarAgreesWithFloat64) {
  Rng rng(1);
  for (DType type : {DType::kF32, DType::kBf16, DType::kI8, DType::kF8E4M3}) {
    for (const auto& [first, window] :
         {std::pair<int64_t, int64_t>{0, 0}, {250, 0}, {600, 0}, {0, 3}, {250, 1}, {600, 300}}) {
      Case c(rng, 8, 2, 32, first, type);
      c.args.window = window;
      const std::vector<float> out = c.Run(ScalarKernels());
      for (int64_t row = 0; row < 8; ++row) {
        for (int64_t head = 0; head < 2; ++head) {
          const float* q = c.q.data() + row * c.args.q_stride + head * 32;
          const auto visible = static_cast<size_t>(first + row + 1);
          std::vector<double> s(visible);
          const size_t begin = window == 0 || first + row < window
                                   ? 0
                                   : static_cast<size_t>(first + row + 1 - window);
          for (size_t p = begin; p < visible; ++p) {
            for (size_t d = 0; d < 32; ++d) s[p] += static_cast<double>(q[d]) * c.k[p][d];
            s[p] *= c.args.scale;
          }
          const auto from = s.begin() + static_cast<int64_t>(begin);
          const double max = *std::max_element(from, s.end());
          double sum = 0;
          std::fill(s.begin(), from, 0.0);
          for (auto value = from; value != s.end(); ++value)
            sum += * value = std::exp(*value - max);
          for (size_t d = 0; d < 32; ++d) {
            double expected = 0;
            for (size_t p = 0; p < visible; ++p) expected += s[p] / sum * c.v[p][d];
            EXPECT_NEAR(out[static_cast<size_t>(row * c.args.out_stride + head * 32) + d], expected,
                        5e-6)
                << Describe(c.args) << " row " << row;
          }
        }
      }
    }
  }
}

TEST(Attention, AllSetsGiveTheScalarBits) {
  Rng rng(2);
  for (int round = 0; round < 300; ++round) {
    const int64_t dims[] = {24, 32, 64, 80, 128, 2, 18};
    const DType types[] = {DType::kF32, DType::kBf16, DType::kI8, DType::kF8E4M3};
    const DType type = types[rng.Below(std::size(types))];
    int64_t head_dim = dims[rng.Below(std::size(dims))];
    if (SizeBytes(type) == 1) head_dim = (head_dim + 3) / 4 * 4;
    const auto rows = static_cast<int64_t>(rng.Below(3) ? 1 + rng.Below(18) : 1);
    const auto first = static_cast<int64_t>(rng.Below(round % 4 == 0 ? 700 : 60));
    Case c(rng, rows, static_cast<int64_t>(1 + rng.Below(8)), head_dim, first, type);
    if (round % 2 == 1) {
      // What no row sees any more may hold anything.
      c.args.window = static_cast<int64_t>(1 + rng.Below(round % 4 == 1 ? 20 : 600));
      c.Spoil(first + 1 - c.args.window);
    }
    const std::vector<float> expected = c.Run(ScalarKernels());
    for (int64_t row = 0; row < rows; ++row)
      ASSERT_FALSE(std::isnan(expected[static_cast<size_t>(row * c.args.out_stride)]));
    ForEachSet([&](const KernelSet& set) {
      EXPECT_TRUE(SameBits(c.Run(set), expected)) << Describe(c.args) << " round " << round;
    });
  }
}

// Rows one by one, as decode would have computed them, and in chunks across segment boundaries.
TEST(Attention, BitsDoNotDependOnRowsInACall) {
  Rng rng(3);
  for (int64_t first : {0, 240, 500}) {
    Case c(rng, 40, 3, 64, first, first == 500 ? DType::kI8 : DType::kBf16);
    if (first == 240) c.args.window = 19;
    const std::vector<float> expected = c.Run(ScalarKernels());
    ForEachSet([&](const KernelSet& set) {
      for (int64_t chunk : {1, 7, 16, 40}) {
        std::vector<float> out = c.out;
        for (int64_t row = 0; row < 40; row += chunk) {
          AttentionArgs part = c.args;
          part.query_rows = std::min(chunk, 40 - row);
          part.first_position = first + row;
          part.q = c.q.data() + row * c.args.q_stride;
          part.out = out.data() + row * c.args.out_stride;
          set.attention(part);
        }
        EXPECT_TRUE(SameBits(out, expected)) << Describe(c.args) << " chunk " << chunk;
      }
    });
  }
}

TEST(Attention, BitsDoNotDependOnPages) {
  Rng a(4);
  Rng b(4);
  Case first(a, 5, 2, 64, 300, DType::kBf16, 2);
  Case second(b, 5, 2, 64, 300, DType::kBf16, 2);
  // Move the second sequence to the other half of the pool.
  std::vector<bool> taken(static_cast<size_t>(second.page_count * 2));
  for (int32_t page : second.pages) taken[static_cast<size_t>(page)] = true;
  int32_t free = 0;
  for (int32_t& page : second.pages) {
    while (taken[static_cast<size_t>(free)]) ++free;
    std::memcpy(second.pool.data() + free * second.args.page_bytes,
                second.pool.data() + page * second.args.page_bytes,
                static_cast<size_t>(second.args.page_bytes));
    page = free++;
  }
  ForEachSet([&](const KernelSet& set) { EXPECT_TRUE(SameBits(first.Run(set), second.Run(set))); });
}

// The widest head and the most queries per tile: the kernels' scratch on a small thread stack.
TEST(Attention, WidestHead) {
  Rng rng(5);
  Case c(rng, 9, 8, isa::kMaxHeadDim, 20, DType::kF32);
  const std::vector<float> expected = c.Run(ScalarKernels());
  ForEachSet([&](const KernelSet& set) { EXPECT_TRUE(SameBits(c.Run(set), expected)); });
}

TEST(KvAppend, FillsItsSlotAndNothingElse) {
  Rng rng(6);
  for (DType type : {DType::kF32, DType::kBf16, DType::kF8E4M3}) {
    const int64_t kv_heads = 2, head_dim = 12, slot = 5;
    const std::vector<float> k = RandomFloats(rng, kv_heads * head_dim);
    const std::vector<float> v = RandomFloats(rng, kv_heads * head_dim);
    ForEachSet([&](const KernelSet& set) {
      AlignedBytes page(isa::KvPageBytes(kv_heads, head_dim, type));
      for (int64_t at = 0; at < page.size_bytes(); at += SizeBytes(type))
        Store(-7, page.data() + at, type);
      set.kv_append({.k = k.data(),
                     .v = v.data(),
                     .page = page.data(),
                     .slot = slot,
                     .kv_heads = kv_heads,
                     .head_dim = head_dim,
                     .kv_type = type});
      const auto rounded = [&](float value) {
        if (type == DType::kF8E4M3) return F8E4M3ToF32(F32ToF8E4M3(value));
        return type == DType::kF32 ? value : Bf16ToF32(F32ToBf16(value));
      };
      for (int64_t head = 0; head < kv_heads; ++head) {
        const std::byte* part = page.data() + head * isa::KvHeadBytes(head_dim, type);
        for (int64_t s = 0; s < isa::kPagePositions; ++s) {
          for (int64_t d = 0; d < head_dim; ++d) {
            const auto i = static_cast<size_t>(head * head_dim + d);
            EXPECT_EQ(Load(part + isa::KOffset(s, d, type), type), s == slot ? rounded(k[i]) : -7);
            EXPECT_EQ(Load(part + isa::VOffset(s, d, head_dim, type), type),
                      s == slot ? rounded(v[i]) : -7);
          }
        }
      }
    });
  }
}

TEST(KvAppend, RoundsAHeadToEightBits) {
  Rng rng(7);
  const int64_t kv_heads = 3, head_dim = 20, slot = 9;
  const std::vector<float> k = RandomFloats(rng, kv_heads * head_dim, -3, 3);
  const std::vector<float> v = RandomFloats(rng, kv_heads * head_dim, -3, 3);
  ForEachSet([&](const KernelSet& set) {
    AlignedBytes page(isa::KvPageBytes(kv_heads, head_dim, DType::kI8));
    std::memset(page.data(), 0x55, static_cast<size_t>(page.size_bytes()));
    set.kv_append({.k = k.data(),
                   .v = v.data(),
                   .page = page.data(),
                   .slot = slot,
                   .kv_heads = kv_heads,
                   .head_dim = head_dim,
                   .kv_type = DType::kI8});
    int64_t touched = 0;
    for (int64_t at = 0; at < page.size_bytes(); ++at)
      touched += page.data()[at] != std::byte{0x55};
    EXPECT_LE(touched, kv_heads * 2 * (head_dim + 4));
    for (int64_t head = 0; head < kv_heads; ++head) {
      const std::byte* part = page.data() + head * isa::KvHeadBytes(head_dim, DType::kI8);
      const float k_scale = Load(part + isa::KScaleOffset(slot, head_dim), DType::kF32);
      const float v_scale = Load(part + isa::VScaleOffset(slot, head_dim), DType::kF32);
      for (int64_t d = 0; d < head_dim; ++d) {
        const auto i = static_cast<size_t>(head * head_dim + d);
        const auto kq = static_cast<int8_t>(part[isa::KOffset(slot, d, DType::kI8)]);
        const auto vq = static_cast<int8_t>(part[isa::VOffset(slot, d, head_dim, DType::kI8)]);
        EXPECT_NEAR(kq * k_scale, k[i], 0.501f * k_scale);
        EXPECT_NEAR(vq * v_scale, v[i], 0.501f * v_scale);
      }
    }
  });
}

}  // namespace
}  // namespace millpower::kernels
