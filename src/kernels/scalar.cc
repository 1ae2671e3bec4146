// The reference: each function is kernels.h's definition, written down. Clarity first; std::fma is
// a library call where the baseline processor has no such instruction.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

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
  Bf16 value;
  std::memcpy(&value, bytes, sizeof value);
  return Bf16ToF32(value);
}

void StoreRounded(float value, std::byte* bytes, DType type) {
  if (type == DType::kF32) {
    std::memcpy(bytes, &value, sizeof value);
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

// The dot products of one row of x with the 16 channels of one block.
void DotBlock(const float* x, int64_t k, const std::byte* block, DType type, float* acc) {
  std::fill_n(acc, kLanes, 0.0f);
  for (int64_t step = 0; step < k; ++step)
    for (int64_t lane = 0; lane < kLanes; ++lane)
      acc[lane] = std::fma(
          x[step], LoadWidened(block + isa::PackedOffset(lane, step, k, type), type), acc[lane]);
}

void MatMul(const MatMulArgs& args, int64_t block_begin, int64_t block_end) {
  const int64_t block_bytes = isa::PackedLines(args.k, args.weight_type) * isa::kLineBytes;
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* x = args.x + row * args.x_stride;
    float* y = args.y + row * args.y_stride;
    for (int64_t block = block_begin; block < block_end; ++block) {
      const int64_t first = block * kLanes;
      const std::byte* w = args.w + block * block_bytes;
      float acc[kLanes];
      DotBlock(x, args.k, w, args.weight_type, acc);
      if (args.epilogue == Epilogue::kSiluGate) {
        float up[kLanes];
        DotBlock(x, args.k, w + block_bytes, args.weight_type, up);
        for (int64_t lane = 0; lane < kLanes; ++lane)
          y[first / 2 + lane] = Silu(acc[lane]) * up[lane];
        ++block;
        continue;
      }
      for (int64_t lane = 0; lane < std::min(kLanes, args.n - first); ++lane) {
        const int64_t channel = first + lane;
        float value = acc[lane];
        if (args.bias != nullptr) value = value + args.bias[channel];
        if (args.epilogue == Epilogue::kAdd)
          value = args.residual[row * args.residual_stride + channel] + value;
        y[channel] = value;
      }
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

// One row and one head over the positions it sees.
void AttendHead(const AttentionArgs& args, const float* q, float* out, int64_t visible) {
  float max = 0, sum = 0;              // M and L so far
  float total[isa::kMaxHeadDim] = {};  // O so far
  for (int64_t begin = 0; begin < visible; begin += isa::kAttentionSegment) {
    const int64_t count = std::min(isa::kAttentionSegment, visible - begin);
    const auto page = [&](int64_t p) {
      return args.kv + args.pages[(begin + p) / isa::kPagePositions] * args.page_bytes +
             args.head_offset_bytes;
    };

    float scores[isa::kAttentionSegment];
    float segment_max = -std::numeric_limits<float>::infinity();
    for (int64_t p = 0; p < count; ++p) {
      const std::byte* k = page(p);
      float s = 0;
      for (int64_t d = 0; d < args.head_dim; ++d)
        s = std::fma(
            q[d],
            LoadWidened(k + isa::KOffset(p % isa::kPagePositions, d, args.kv_type), args.kv_type),
            s);
      scores[p] = s * args.scale;
      segment_max = std::max(segment_max, scores[p]);
    }

    float lanes[kLanes] = {};
    float segment[isa::kMaxHeadDim] = {};
    for (int64_t p = 0; p < count; ++p) {
      const float e = Exp(scores[p] - segment_max);
      lanes[p % kLanes] += e;
      const std::byte* v =
          page(p) + isa::VOffset(p % isa::kPagePositions, 0, args.head_dim, args.kv_type);
      for (int64_t c = 0; c < args.head_dim; ++c)
        segment[c] =
            std::fma(e, LoadWidened(v + c * SizeBytes(args.kv_type), args.kv_type), segment[c]);
    }
    const float segment_sum = Sum16(lanes);

    if (begin == 0) {
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

void Attention(const AttentionArgs& args) {
  for (int64_t row = 0; row < args.query_rows; ++row)
    for (int64_t head = 0; head < args.group; ++head)
      AttendHead(args, args.q + row * args.q_stride + head * args.head_dim,
                 args.out + row * args.out_stride + head * args.head_dim,
                 args.first_position + row + 1);
}

int64_t ArgMax(const float* x, int64_t n) {
  int64_t best = -1;
  for (int64_t i = 0; i < n; ++i)
    if (!std::isnan(x[i]) && (best < 0 || x[i] > x[best])) best = i;
  return best < 0 ? 0 : best;  // all NaN: the first
}

float SumExp(const float* x, int64_t n, float offset, float scale) {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % kLanes] += Exp((x[i] - offset) * scale);
  return Sum16(lanes);
}

constexpr KernelSet kScalarSet = {
    .name = "scalar",
    .instructions = "none beyond the compiler's baseline",
    .matmul = MatMul,
    .rms_norm = RmsNorm,
    .rope_table = ScalarRopeTable,
    .rope = Rope,
    .kv_append = ScalarKvAppend,
    .attention = Attention,
    .gather_packed = ScalarGatherPacked,
    .argmax = ArgMax,
    .sum_exp = SumExp,
};

}  // namespace

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
    for (int64_t d = 0; d < args.head_dim; ++d) {
      StoreRounded(k[d], part + isa::KOffset(args.slot, d, args.kv_type), args.kv_type);
      StoreRounded(v[d], part + isa::VOffset(args.slot, d, args.head_dim, args.kv_type),
                   args.kv_type);
    }
  }
}

void ScalarGatherPacked(const std::byte* w, DType type, int64_t k, int64_t row, float* y) {
  for (int64_t step = 0; step < k; ++step)
    y[step] = LoadWidened(w + isa::PackedOffset(row, step, k, type), type);
}

const KernelSet& ScalarKernels() { return kScalarSet; }

}  // namespace millpower::kernels
