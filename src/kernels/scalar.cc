// The reference: each function is kernels.h's definition, written down. Clarity first; std::fma is
// a library call where the baseline processor has no such instruction.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <numeric>

#include "isa/layout.h"
#include "kernels/kernel_sets.h"
#include "kernels/kernels.h"
#include "kernels/scalar_math.h"
#include "kernels/sin_cos.h"

namespace millpower::kernels {
namespace {

constexpr int64_t kLanes = isa::kLanes;

// The element of a weight, K or V that lies at `bytes`, widened to f32.
float LoadWidened(const std::byte* bytes, DType type) {
  if (type == DType::kF32) {
    float value;
    std::memcpy(&value, bytes, sizeof value);
    return value;
  }
  if (type == DType::kI8) return static_cast<float>(static_cast<int8_t>(*bytes));
  if (type == DType::kF8E4M3) return F8E4M3ToF32(static_cast<uint8_t>(*bytes));
  Bf16 value;
  std::memcpy(&value, bytes, sizeof value);
  return Bf16ToF32(value);
}

void StoreRounded(float value, std::byte* bytes, DType type) {
  if (type == DType::kF32) {
    std::memcpy(bytes, &value, sizeof value);
    return;
  }
  if (type == DType::kF8E4M3) {
    *bytes = std::byte{F32ToF8E4M3(value)};
    return;
  }
  const Bf16 rounded = F32ToBf16(value);
  std::memcpy(bytes, &rounded, sizeof rounded);
}

float Sum16(const float* lanes) {
  float v[kLanes];
  std::copy_n(lanes, kLanes, v);
  for (int h = 8; h >= 1; h /= 2)
    for (int j = 0; j < h; ++j) v[j] += v[j + h];
  return v[0];
}

// The dot products of one row of x, whose element `step` is x(step), with the 16 channels of one
// block whose values lie singly.
template <typename X>
void DotBlock(const X& x, int64_t k, const std::byte* block, DType type, float* acc) {
  std::fill_n(acc, kLanes, 0.0f);
  for (int64_t step = 0; step < k; ++step) {
    const float value = x(step);
    for (int64_t lane = 0; lane < kLanes; ++lane)
      acc[lane] = std::fma(value, LoadWidened(block + isa::PackedOffset(lane, step, k, type), type),
                           acc[lane]);
  }
}

// One lane of a chunk of a weight in blocks (isa/layout.h).
class ChunkLane {
 public:
  ChunkLane(const std::byte* chunk, DType type, int64_t lane)
      : chunk_(chunk), type_(type), lane_(lane) {}

  // The integer of a step, without its bias.
  int32_t Value(int64_t step) const {
    const std::byte* values = chunk_ + isa::ScaleLines(type_) * isa::kLineBytes + lane_ * 4;
    if (type_ == DType::kQ8_0 || type_ == DType::kQ6_K) {
      const auto byte = static_cast<int32_t>(values[step / 4 * isa::kLineBytes + step % 4]);
      return byte - (type_ == DType::kQ8_0 ? 128 : 32);
    }
    const auto byte = static_cast<int32_t>(values[step / 8 * isa::kLineBytes + step % 4]);
    const int32_t nibble = step % 8 < 4 ? byte & 15 : byte >> 4;
    return nibble - (type_ == DType::kQ4_0 ? 8 : 0);
  }

  // What the integer of a step is multiplied by.
  float Scale(int64_t step) const {
    if (type_ == DType::kQ8_0 || type_ == DType::kQ4_0) return Half(step / 32 * kLanes + lane_);
    const std::byte scale = type_ == DType::kQ4_K
                                ? chunk_[isa::kLineBytes + step / 32 * kLanes + lane_]
                                : chunk_[isa::kLineBytes + step / 16 * kLanes + lane_];
    const float factor = type_ == DType::kQ4_K ? static_cast<float>(static_cast<uint8_t>(scale))
                                               : static_cast<float>(static_cast<int8_t>(scale));
    return Half(lane_) * factor;
  }

  // What is taken off every value of a step's group; 0 for types without minima.
  float Minimum(int64_t step) const {
    if (type_ != DType::kQ4_K) return 0;
    const std::byte min = chunk_[3 * isa::kLineBytes + step / 32 * kLanes + lane_];
    return Half(kLanes + lane_) * static_cast<float>(static_cast<uint8_t>(min));
  }

 private:
  float Half(int64_t index) const {
    uint16_t bits;
    std::memcpy(&bits, chunk_ + index * 2, sizeof bits);
    return F16ToF32(bits);
  }

  const std::byte* chunk_;
  DType type_;
  int64_t lane_;
};

const std::byte* ChunkOf(const std::byte* block, DType type, int64_t step) {
  return block + step / isa::ChunkSteps(type) * isa::ChunkLines(type) * isa::kLineBytes;
}

// One group of a quantised row (isa/layout.h).
struct QuantisedGroup {
  explicit QuantisedGroup(const std::byte* record)
      : q(reinterpret_cast<const int8_t*>(record)),
        scale(LoadWidened(record + isa::kQuantScaleAt, DType::kF32)) {
    std::memcpy(&sum, record + isa::kQuantSumAt, sizeof sum);
  }
  const int8_t* q;
  float scale;
  int32_t sum;
};

// The same, weights in blocks.
void DotBlockQuantised(const std::byte* x, int64_t k, const std::byte* block, DType type,
                       float* acc) {
  constexpr int64_t kGroup = isa::kQuantGroup;
  const int64_t part = type == DType::kQ6_K ? 16 : kGroup;  // that shares a scale
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    acc[lane] = 0;
    for (int64_t begin = 0; begin < k; begin += kGroup) {
      const ChunkLane weights(ChunkOf(block, type, begin), type, lane);
      const int64_t first = begin % isa::ChunkSteps(type);
      const QuantisedGroup group(x + begin / kGroup * isa::kQuantGroupBytes);
      for (int64_t p = 0; p < kGroup; p += part) {
        int32_t dot = 0;
        for (int64_t i = p; i < p + part; ++i) dot += group.q[i] * weights.Value(first + i);
        acc[lane] =
            std::fma(static_cast<float>(dot), weights.Scale(first + p) * group.scale, acc[lane]);
      }
      if (type != DType::kQ4_K) continue;
      acc[lane] =
          std::fma(-static_cast<float>(group.sum), weights.Minimum(first) * group.scale, acc[lane]);
    }
  }
}

// Values [begin, begin + count) of lane `lane` of a block, of a type in blocks, to every stride-th
// float of `out`. `begin` is a multiple of 16.
void WidenLane(const std::byte* block, DType type, int64_t lane, int64_t begin, int64_t count,
               float* out, int64_t stride) {
  constexpr int64_t kPart = 16;  // shares a scale in every type
  for (int64_t end = begin + count; begin < end; begin += kPart) {
    const ChunkLane weights(ChunkOf(block, type, begin), type, lane);
    const int64_t first = begin % isa::ChunkSteps(type);
    const float scale = weights.Scale(first);
    const float minimum = weights.Minimum(first);
    for (int64_t i = 0; i < std::min(kPart, end - begin); ++i, out += stride) {
      const float value = scale * static_cast<float>(weights.Value(first + i));
      *out = type == DType::kQ4_K ? value - minimum : value;
    }
  }
}

// A row in f32 and a weight in blocks, widened a few steps at a time.
void DotBlockWidened(const float* x, int64_t k, const std::byte* block, DType type, float* acc) {
  constexpr int64_t kSteps = 64;
  float values[kSteps * kLanes];
  std::fill_n(acc, kLanes, 0.0f);
  for (int64_t begin = 0; begin < k; begin += kSteps) {
    const int64_t count = std::min(kSteps, k - begin);
    for (int64_t lane = 0; lane < kLanes; ++lane)
      WidenLane(block, type, lane, begin, count, values + lane, kLanes);
    for (int64_t step = 0; step < count; ++step)
      for (int64_t lane = 0; lane < kLanes; ++lane)
        acc[lane] = std::fma(x[begin + step], values[step * kLanes + lane], acc[lane]);
  }
}

// A weight in f8_e4m3; x: a row in f32, or null; xq: one quantised to f8_e4m3, of which the product
// takes the values from `begin` on.
void DotBlockF8(const float* x, const std::byte* xq, int64_t begin, int64_t k,
                const std::byte* block, float* acc) {
  constexpr DType kType = DType::kF8E4M3;
  const std::byte* q = xq == nullptr ? nullptr : xq + isa::kF8ValuesAt + begin;
  if (x != nullptr)
    DotBlock([&](int64_t step) { return x[step]; }, k, block, kType, acc);
  else
    DotBlock([&](int64_t step) { return LoadWidened(q + step, kType); }, k, block, kType, acc);
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    float scale = LoadWidened(block + isa::ChannelScaleOffset(lane, k), DType::kF32);
    if (x == nullptr) scale = LoadWidened(xq, DType::kF32) * scale;
    acc[lane] = acc[lane] * scale;
  }
}

// Of whatever form: of row `row`, or of entry `row`.
void DotOf(const MatMulArgs& args, int64_t row, const std::byte* block, float* acc) {
  const int64_t entry = args.entries.entries == nullptr ? row : args.entries.entries[row];
  const int64_t x_row = args.entries.entries == nullptr ? row : entry / args.entries.choices;
  const int64_t begin = args.entries.x_per_choice ? entry % args.entries.choices * args.k : 0;
  const float* x = args.xq != nullptr ? nullptr : args.x + x_row * args.x_stride + begin;
  const std::byte* xq = args.xq == nullptr ? nullptr : args.xq + x_row * args.xq_stride_bytes;
  if (args.weight_type == DType::kF8E4M3) return DotBlockF8(x, xq, begin, args.k, block, acc);
  if (!IsBlockType(args.weight_type))
    return DotBlock([&](int64_t step) { return x[step]; }, args.k, block, args.weight_type, acc);
  if (x != nullptr) return DotBlockWidened(x, args.k, block, args.weight_type, acc);
  DotBlockQuantised(xq + begin / isa::kQuantGroup * isa::kQuantGroupBytes, args.k, block,
                    args.weight_type, acc);
}

float* OutputOf(const MatMulArgs& args, int64_t row) {
  if (args.entries.entries == nullptr) return args.y + row * args.y_stride;
  const int64_t entry = args.entries.entries[row];
  return args.y + entry / args.entries.choices * args.y_stride +
         entry % args.entries.choices * args.entries.width;
}

void Contract(const ContractArgs& args) {
  for (int64_t row = 0; row < args.m; ++row) {
    float* y = args.y + row * args.y_stride;
    if (!args.carry) std::fill_n(y, args.n, 0.0f);
    for (int64_t step = 0; step < args.k; ++step) {
      const float a = args.a[row * args.a_row_stride + step * args.a_step_stride];
      const float* b = args.b + step * args.b_stride;
      for (int64_t c = 0; c < args.n; ++c) y[c] = std::fma(a, b[c], y[c]);
    }
    if (args.bias == nullptr) continue;
    for (int64_t c = 0; c < args.n; ++c) y[c] += args.bias[row];
  }
}

// Element c of a row of an embedding table, without its scale.
float TableValue(const std::byte* row, DType type, int64_t c) {
  constexpr int64_t kScaleBytes = 4;
  switch (type) {
    case DType::kF16: {
      uint16_t half;
      std::memcpy(&half, row + 2 * c, sizeof half);
      return F16ToF32(half);
    }
    case DType::kI8:
      return LoadWidened(row + kScaleBytes + c, type);
    case DType::kI4: {
      const auto pair = static_cast<int>(row[kScaleBytes + c / 2]);
      return static_cast<float>((c % 2 == 0 ? pair & 15 : pair >> 4) - 8);
    }
    default:
      return LoadWidened(row + c * SizeBytes(type), type);
  }
}

void PoolRows(const BagArgs& args) {
  const bool scaled = args.type == DType::kI8 || args.type == DType::kI4;
  int64_t item = 0;
  for (int64_t bag = 0; bag < args.bags; ++bag) {
    float* y = args.y + bag * args.y_stride;
    bool carry = args.carry && bag == 0;
    if (!carry) std::fill_n(y, args.cols, 0.0f);
    for (; item < args.ends[bag]; ++item, carry = true) {
      const std::byte* row = args.rows[item];
      float scale = args.weights == nullptr ? 1.0f : args.weights[item];
      if (scaled) scale = scale * LoadWidened(row, DType::kF32);
      for (int64_t c = 0; c < args.cols; ++c) {
        const float value = TableValue(row, args.type, c);
        if (!args.max)
          y[c] = std::fma(value, scale, y[c]);
        else if (const float v = value * scale; !carry || v > y[c])
          y[c] = v;
      }
    }
  }
}

// Ties to even for |x| < 2^22, as kRoundMagic has no fraction bits.
float RoundToInteger(float x) { return (x + kRoundMagic) - kRoundMagic; }

// Calls put(i, x[i] * (limit / the largest magnitude), or 0) for each; returns the scale.
template <typename Put>
float ScaleGroup(const float* x, int64_t count, float limit, const Put& put) {
  float a = 0;
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) {
    a = std::max(a, std::abs(x[i]));
    finite = finite && std::abs(x[i]) < std::numeric_limits<float>::infinity();
  }
  const float inverse = limit / a;
  const bool zero = !finite || !(inverse < std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < count; ++i) put(i, zero ? 0.0f : x[i] * inverse);
  if (!finite) return std::numeric_limits<float>::quiet_NaN();
  return zero ? 0.0f : a / limit;
}

// Calls put(i, the integer of x[i]) for each; returns the scale.
template <typename Put>
float QuantiseGroup(const float* x, int64_t count, const Put& put) {
  return ScaleGroup(x, count, 127.0f, [&](int64_t i, float value) {
    put(i, static_cast<int8_t>(RoundToInteger(value)));
  });
}

void QuantiseF8(const QuantiseArgs& args, int64_t row_begin, int64_t row_end) {
  const int64_t row_bytes = isa::QuantisedRowBytes(args.k, DType::kF8E4M3);
  for (int64_t row = row_begin; row < row_end; ++row) {
    std::byte* y = args.y + row * row_bytes;
    std::memset(y, 0, static_cast<size_t>(row_bytes));
    const float scale =
        ScaleGroup(args.x + row * args.x_stride, args.k, kF8E4M3Max, [&](int64_t i, float value) {
          StoreRounded(value, y + isa::kF8ValuesAt + i, DType::kF8E4M3);
        });
    StoreRounded(scale, y, DType::kF32);
  }
}

void QuantiseI8(const QuantiseArgs& args, int64_t row_begin, int64_t row_end) {
  constexpr int64_t kGroup = isa::kQuantGroup;
  for (int64_t row = row_begin; row < row_end; ++row) {
    std::byte* record = args.y + row * isa::QuantisedRowBytes(args.k);
    for (int64_t begin = 0; begin < args.k; begin += kGroup, record += isa::kQuantGroupBytes) {
      float x[kGroup] = {};
      std::copy_n(args.x + row * args.x_stride + begin, std::min(kGroup, args.k - begin), x);
      auto* q = reinterpret_cast<int8_t*>(record);
      const float scale = QuantiseGroup(x, kGroup, [&](int64_t i, int8_t value) { q[i] = value; });
      const int32_t halves[] = {std::accumulate(q, q + kGroup / 2, 0),
                                std::accumulate(q + kGroup / 2, q + kGroup, 0)};
      const int32_t sum = halves[0] + halves[1];
      std::memcpy(record + isa::kQuantScaleAt, &scale, sizeof scale);
      std::memcpy(record + isa::kQuantSumAt, &sum, sizeof sum);
      std::memcpy(record + isa::kQuantHalfSumsAt, halves, sizeof halves);
    }
  }
}

float SumExp(const float* x, int64_t n, float offset, float scale) {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % kLanes] += Exp((x[i] - offset) * scale);
  return Sum16(lanes);
}

void Route(const RouteArgs& args) {
  ScalarChooseExperts(args);
  for (int64_t row = 0; row < args.rows; ++row) {
    float* weights = args.weights + row * args.weights_stride;
    const float max = weights[0];
    float total = 0;
    for (int64_t j = 0; j < args.choices; ++j) {
      weights[j] = Exp(weights[j] - max);
      total += weights[j];
    }
    if (!args.normalise)
      total = SumExp(args.logits + row * args.logits_stride, args.experts, max, 1.0f);
    for (int64_t j = 0; j < args.choices; ++j) weights[j] = weights[j] / total;
  }
}

void Combine(const CombineArgs& args, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* x = args.x + row * args.x_stride;
    const float* weights = args.weights + row * args.weights_stride;
    for (int64_t c = 0; c < args.cols; ++c) {
      float z = weights[0] * x[c];
      for (int64_t j = 1; j < args.choices; ++j) z = std::fma(weights[j], x[j * args.cols + c], z);
      if (args.residual != nullptr) z = args.residual[row * args.residual_stride + c] + z;
      args.y[row * args.y_stride + c] = z;
    }
  }
}

void RmsNorm(const RmsNormArgs& args, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    for (int64_t first = 0; first < args.cols; first += args.group) {
      const float* x = args.x + row * args.x_stride + first;
      float* y = args.y + row * args.y_stride + first;
      float acc[kLanes] = {};
      for (int64_t c = 0; c < args.group; ++c)
        acc[c % kLanes] = std::fma(x[c], x[c], acc[c % kLanes]);
      const float mean = Sum16(acc) / static_cast<float>(args.group);
      const float inv = 1.0f / std::sqrt(mean + args.epsilon);
      for (int64_t c = 0; c < args.group; ++c) y[c] = (x[c] * inv) * args.weight[c];
    }
  }
}

void Rope(const RopeArgs& args, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* cos = args.table + row * 2 * args.half;
    const float* sin = cos + args.half;
    for (int64_t head = 0; head < args.heads; ++head) {
      float* x = args.x + row * args.x_stride + head * 2 * args.half;
      for (int64_t i = 0; i < args.half; ++i) {
        const float a = x[i];
        const float b = x[args.half + i];
        x[i] = a * cos[i] - b * sin[i];
        x[args.half + i] = b * cos[i] + a * sin[i];
      }
    }
  }
}

// One row and one head over the positions it sees, `seen` up to `visible`.
void AttendHead(const AttentionArgs& args, const float* q, float* out, int64_t seen,
                int64_t visible) {
  float max = 0, sum = 0;              // M and L so far
  float total[isa::kMaxHeadDim] = {};  // O so far
  const int64_t first_segment = seen / isa::kAttentionSegment * isa::kAttentionSegment;
  for (int64_t begin = first_segment; begin < visible; begin += isa::kAttentionSegment) {
    const int64_t from = std::max<int64_t>(0, seen - begin);
    const int64_t count = std::min(isa::kAttentionSegment, visible - begin);
    const auto page = [&](int64_t p) {
      return args.kv + args.pages[(begin + p) / isa::kPagePositions] * args.page_bytes +
             args.head_offset_bytes;
    };

    float scores[isa::kAttentionSegment];
    float segment_max = -std::numeric_limits<float>::infinity();
    for (int64_t p = from; p < count; ++p) {
      const std::byte* k = page(p);
      float s = 0;
      for (int64_t d = 0; d < args.head_dim; ++d)
        s = std::fma(
            q[d],
            LoadWidened(k + isa::KOffset(p % isa::kPagePositions, d, args.kv_type), args.kv_type),
            s);
      if (args.kv_type == DType::kI8)
        s = s *
            LoadWidened(k + isa::KScaleOffset(p % isa::kPagePositions, args.head_dim), DType::kF32);
      scores[p] = s * args.scale;
      segment_max = std::max(segment_max, scores[p]);
    }

    float lanes[kLanes] = {};
    float segment[isa::kMaxHeadDim] = {};
    for (int64_t p = from; p < count; ++p) {
      float e = Exp(scores[p] - segment_max);
      lanes[p % kLanes] += e;
      if (args.kv_type == DType::kI8)
        e = e * LoadWidened(page(p) + isa::VScaleOffset(p % isa::kPagePositions, args.head_dim),
                            DType::kF32);
      const std::byte* v =
          page(p) + isa::VOffset(p % isa::kPagePositions, 0, args.head_dim, args.kv_type);
      for (int64_t c = 0; c < args.head_dim; ++c)
        segment[c] =
            std::fma(e, LoadWidened(v + c * SizeBytes(args.kv_type), args.kv_type), segment[c]);
    }
    const float segment_sum = Sum16(lanes);

    if (begin == first_segment) {
      max = segment_max;
      sum = segment_sum;
      std::copy_n(segment, args.head_dim, total);
      continue;
    }
    const float new_max = std::max(max, segment_max);
    const float a = Exp(max - new_max);
    const float b = Exp(segment_max - new_max);
    sum = sum * a + segment_sum * b;
    for (int64_t c = 0; c < args.head_dim; ++c) total[c] = total[c] * a + segment[c] * b;
    max = new_max;
  }
  const float inv = 1.0f / sum;
  for (int64_t c = 0; c < args.head_dim; ++c) out[c] = total[c] * inv;
}

int64_t ArgMax(const float* x, int64_t n) {
  int64_t best = -1;
  for (int64_t i = 0; i < n; ++i)
    if (!std::isnan(x[i]) && (best < 0 || x[i] > x[best])) best = i;
  return best < 0 ? 0 : best;  // all NaN: the first
}

constexpr KernelSet kScalarSet = {
    .name = "scalar",
    .instructions = "none beyond the compiler's baseline",
    .matmul = ScalarMatMul,
    .contract = Contract,
    .pool_rows = PoolRows,
    .quantise = ScalarQuantise,
    .route = Route,
    .combine = Combine,
    .rms_norm = RmsNorm,
    .rope_table = ScalarRopeTable,
    .rope = Rope,
    .kv_append = ScalarKvAppend,
    .attention = ScalarAttention,
    .gather_packed = ScalarGatherPacked,
    .argmax = ArgMax,
    .sum_exp = SumExp,
};

}  // namespace

void ScalarMatMul(const MatMulArgs& args, int64_t block_begin, int64_t block_end) {
  const int64_t block_bytes = isa::PackedLines(args.k, args.weight_type) * isa::kLineBytes;
  const bool gated = args.epilogue == Epilogue::kSiluGate;
  const int64_t width =
      args.entries.entries == nullptr ? gated ? args.n / 2 : args.n : args.entries.width;
  for (int64_t row = 0; row < args.rows; ++row) {
    float* y = OutputOf(args, row);
    for (int64_t block = block_begin; block < block_end; ++block) {
      const int64_t first = block * kLanes;
      const std::byte* w = args.w + block * block_bytes;
      float acc[kLanes];
      DotOf(args, row, w, acc);
      if (gated) {
        float up[kLanes];
        DotOf(args, row, w + block_bytes, up);
        for (int64_t lane = 0; lane < std::min(kLanes, width - first / 2); ++lane)
          y[first / 2 + lane] = Silu(acc[lane]) * up[lane];
        ++block;
        continue;
      }
      for (int64_t lane = 0; lane < std::min(kLanes, width - first); ++lane) {
        const int64_t channel = first + lane;
        float value = acc[lane];
        if (args.bias != nullptr) value = value + args.bias[channel];
        if (args.epilogue == Epilogue::kAdd)
          value = args.residual[row * args.residual_stride + channel] + value;
        if (args.epilogue == Epilogue::kSiluMul)
          value = Silu(args.residual[row * args.residual_stride + channel]) * value;
        if (args.epilogue == Epilogue::kRelu) value = value < 0 ? 0.0f : value;
        y[channel] = value;
      }
    }
  }
}

void ScalarQuantise(const QuantiseArgs& args, int64_t row_begin, int64_t row_end) {
  if (args.type == DType::kF8E4M3) return QuantiseF8(args, row_begin, row_end);
  QuantiseI8(args, row_begin, row_end);
}

void ScalarAttention(const AttentionArgs& args) {
  for (int64_t row = 0; row < args.query_rows; ++row) {
    const int64_t visible = args.first_position + row + 1;
    const int64_t seen = args.window == 0 ? 0 : std::max<int64_t>(0, visible - args.window);
    for (int64_t head = 0; head < args.group; ++head)
      AttendHead(args, args.q + row * args.q_stride + head * args.head_dim,
                 args.out + row * args.out_stride + head * args.head_dim, seen, visible);
  }
}

void ScalarRopeTable(const RopeTableArgs& args, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    float* table = args.table + row * 2 * args.half;
    const float position = static_cast<float>(args.positions[row]);
    for (int64_t i = 0; i < args.half; ++i) {
      const float angle = position * args.inv_freq[i];
      const SinCosResult value = SinCos(angle);
      table[i] = static_cast<float>(value.cos) * args.scale;
      table[args.half + i] = static_cast<float>(value.sin) * args.scale;
    }
  }
}

void ScalarKvAppend(const KvAppendArgs& args) {
  for (int64_t head = 0; head < args.kv_heads; ++head) {
    std::byte* part = args.page + head * isa::KvHeadBytes(args.head_dim, args.kv_type);
    const float* k = args.k + head * args.head_dim;
    const float* v = args.v + head * args.head_dim;
    if (args.kv_type == DType::kI8) {
      const float k_scale = QuantiseGroup(k, args.head_dim, [&](int64_t d, int8_t q) {
        part[isa::KOffset(args.slot, d, DType::kI8)] = static_cast<std::byte>(q);
      });
      const float v_scale = QuantiseGroup(v, args.head_dim, [&](int64_t d, int8_t q) {
        part[isa::VOffset(args.slot, d, args.head_dim, DType::kI8)] = static_cast<std::byte>(q);
      });
      StoreRounded(k_scale, part + isa::KScaleOffset(args.slot, args.head_dim), DType::kF32);
      StoreRounded(v_scale, part + isa::VScaleOffset(args.slot, args.head_dim), DType::kF32);
      continue;
    }
    for (int64_t d = 0; d < args.head_dim; ++d) {
      StoreRounded(k[d], part + isa::KOffset(args.slot, d, args.kv_type), args.kv_type);
      StoreRounded(v[d], part + isa::VOffset(args.slot, d, args.head_dim, args.kv_type),
                   args.kv_type);
    }
  }
}

void ScalarGatherPacked(const std::byte* w, DType type, int64_t k, int64_t row, float* y) {
  const std::byte* block = w + row / kLanes * isa::PackedLines(k, type) * isa::kLineBytes;
  if (IsBlockType(type)) return WidenLane(block, type, row % kLanes, 0, k, y, 1);
  for (int64_t step = 0; step < k; ++step)
    y[step] = LoadWidened(w + isa::PackedOffset(row, step, k, type), type);
  if (type != DType::kF8E4M3) return;
  const float scale = LoadWidened(w + isa::ChannelScaleOffset(row, k), DType::kF32);
  for (int64_t step = 0; step < k; ++step) y[step] = y[step] * scale;
}

// Better: larger, and any number before NaN. Equals keep their order.
void ScalarChooseExperts(const RouteArgs& args) {
  int32_t* experts = args.list + isa::kExpertListExperts;
  int32_t* begins = args.list + isa::ExpertListBegins(args.experts);
  int32_t* entries = args.list + isa::ExpertListEntries(args.experts);
  int32_t* chosen = args.list + isa::ExpertListChosen(args.rows, args.choices, args.experts);
  std::fill_n(begins, args.experts + 1, 0);
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* logits = args.logits + row * args.logits_stride;
    float* best = args.weights + row * args.weights_stride;
    int32_t* ids = chosen + row * args.choices;
    const auto better = [](float a, float b) { return a > b || (std::isnan(b) && !std::isnan(a)); };
    int64_t held = 0;
    for (int64_t expert = 0; expert < args.experts; ++expert) {
      if (held == args.choices && !better(logits[expert], best[held - 1])) continue;
      int64_t at = held < args.choices ? held++ : held - 1;
      for (; at > 0 && better(logits[expert], best[at - 1]); --at) {
        best[at] = best[at - 1];
        ids[at] = ids[at - 1];
      }
      best[at] = logits[expert];
      ids[at] = static_cast<int32_t>(expert);
    }
    for (int64_t j = 0; j < args.choices; ++j) ++begins[ids[j] + 1];
  }
  int32_t active = 0;
  for (int64_t expert = 0; expert < args.experts; ++expert) {
    if (begins[expert + 1] > 0) experts[active++] = static_cast<int32_t>(expert);
    begins[expert + 1] += begins[expert];
  }
  args.list[isa::kExpertListActive] = active;
  // Each begin advances as its entries are dealt out, to the next one's begin; then they move back.
  for (int64_t i = 0; i < args.rows * args.choices; ++i)
    entries[begins[chosen[i]]++] = static_cast<int32_t>(i);
  for (int64_t expert = args.experts; expert > 0; --expert) begins[expert] = begins[expert - 1];
  begins[0] = 0;
}

const KernelSet& ScalarKernels() { return kScalarSet; }

}  // namespace millpower::kernels
