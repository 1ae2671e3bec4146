// The tile mathematics of the CPU device, in several instruction sets with one result.
//
// Every function states its arithmetic exactly: the order of each reduction and where a fused
// multiply-add (one rounding) is used. All sets follow it to the letter, so "scalar", "avx2",
// "avx512" and "avx512vnni" give the same bits, and a test compares them with ==. What a result
// depends on is absolute: never the number of rows, the split over threads, or the page a position
// lives in.
//
// Notation: fma(a,b,c) rounds once; every other operation rounds on its own (the build forbids
// contraction). sum16(v) is the fixed tree over 16 lanes: for h in 8,4,2,1: v[j] += v[j+h], j < h.
//
// Functions are pure but for their outputs, allocate nothing, lock nothing, and may run on any
// number of threads over disjoint outputs. Pointers need only the alignment of their type, but
// packed weights and KV pages are 64-byte aligned.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"

namespace millpower::kernels {

enum class Epilogue : uint8_t {
  kNone,      // y = acc [+ bias]
  kAdd,       // y = residual + (acc [+ bias]); residual may be y itself
  kSiluGate,  // packed blocks alternate gate, up: y = Silu(gate) * up; y has half the channels
  kSiluMul,   // y = Silu(residual) * acc: the residual is the gate; y may be the residual
  kRelu,      // y = z < 0 ? 0 : z, z = acc [+ bias]; NaN and -0 stay
};

// Rows of one matrix product that belong to one expert: entries row * choices + choice of an expert
// list (isa/layout.h). Entry e takes row e / choices of x - with x_per_choice its columns
// [choice * k, (choice + 1) * k) - and gives columns [choice * width, (choice + 1) * width) of row
// e / choices of y.
struct Entries {
  const int32_t* entries = nullptr;  // [rows]; null: row r of x gives row r of y
  int64_t choices = 1;
  int64_t width = 0;  // at most what the epilogue leaves of n; channels beyond are not stored
  bool x_per_choice = false;
};

// y[m, n] = epilogue(sum over k of x[m, k] * w[n, k]), acc[n] in float32 from 0.
//
// f32 and bf16 weights, x in f32: for k = 0 .. K-1 in order: acc = fma(x[k], widen(w[k]), acc).
//
// Block types, x quantised (isa/layout.h; xs = the group's scale): group by group of 32 steps in
// order, with idot = the exact sum over the group of x.q * w.q, w.q without its bias,
//   q8_0, q4_0:  acc = fma(float(idot), d * xs, acc)
//   q4_k:        acc = fma(float(idot), (d * float(scale)) * xs, acc), then
//                acc = fma(-float(sum of the group's x.q), (dmin * float(min)) * xs, acc)
//   q6_k:        for each half of the group, 16 steps: acc = fma(float(idot), (d * float(scale)) *
//                xs, acc)
// which is, but for rounding, the product with the file's values. A group that k ends in takes part
// as a whole (what is beyond k is 0 in x and w), those beyond it in the last chunk do not.
//
// Block types, x in f32 (xq null): as f32 weights, of the values that gather_packed gives.
//
// f8_e4m3: the chain over k of fma(x[k], widen(w[k]), acc), x in f32 or the widened x.q of rows
// that are quantised to f8_e4m3; then acc * (x's scale * the channel's scale), with x in f32 acc *
// the channel's scale.
struct MatMulArgs {
  const float* x = nullptr;         // [rows, k], row stride x_stride; or
  const std::byte* xq = nullptr;    // quantised rows, row stride xq_stride_bytes; never for floats
  const std::byte* w = nullptr;     // packed (isa/layout.h), 64-byte aligned
  const float* bias = nullptr;      // [n] or null; never with kSiluGate
  const float* residual = nullptr;  // [rows, n], row stride residual_stride; with kAdd, kSiluMul
  float* y = nullptr;               // [rows, n], or [rows, n/2] with kSiluGate
  int64_t rows = 0;                 // with entries: their number
  int64_t k = 0;
  int64_t n = 0;  // output channels of w before the epilogue; with kSiluGate a multiple of 32
  int64_t x_stride = 0;  // strides in elements
  int64_t xq_stride_bytes = 0;
  int64_t residual_stride = 0;
  int64_t y_stride = 0;
  DType weight_type = DType::kF32;
  Epilogue epilogue = Epilogue::kNone;
  Entries entries{};  // never with bias, residual
};

// y[m, n] = sum over k of a[m, k] * b[k, n], both computed, for k = 0 .. K-1 in order: acc =
// fma(a[m, k], b[k, n], acc), from 0 or, with carry, from what y holds; then + bias[m]. So a
// product may be cut anywhere along k, and has the same bits.
struct ContractArgs {
  const float* a = nullptr;     // element (row, step) at row * a_row_stride + step * a_step_stride
  const float* b = nullptr;     // [k, n], row stride b_stride
  const float* bias = nullptr;  // [m] or null
  float* y = nullptr;           // [m, n], row stride y_stride
  int64_t m = 0;
  int64_t k = 0;
  int64_t n = 0;
  int64_t a_row_stride = 0;  // strides in elements
  int64_t a_step_stride = 0;
  int64_t b_stride = 0;
  int64_t y_stride = 0;
  bool carry = false;
};

// Rows of an embedding table (isa/layout.h), pooled. For the items of a bag in order, s being the
// item's weight (1 without weights), times the row's scale, rounded, in i8 and i4:
//   sum  acc = fma(value, s, acc), from 0 or, with carry, from what y holds
//   max  v = value * s, acc = v > acc ? v : acc, from the first item's v or, with carry, from y
// `value` is the stored number or integer as f32. A bag without items is zeros, with carry y.
struct BagArgs {
  const std::byte* const* rows = nullptr;  // [items] of all bags, one after the other
  const float* weights = nullptr;          // [items] or null
  const int32_t* ends = nullptr;           // [bags]: where each bag's items end
  float* y = nullptr;                      // [bags, cols], row stride y_stride
  int64_t bags = 0;
  int64_t cols = 0;
  int64_t y_stride = 0;      // in elements
  DType type = DType::kF32;  // f32, bf16, f16, i8 or i4
  bool max = false;
  bool carry = false;  // of the first bag
};

// Quantises rows to isa/layout.h's form. Of each group of 32 (values past the end are 0):
//   a = max |x|; scale = a / 127; q = round to nearest even of x * (127 / a), 0 when a is 0;
// a group that holds a NaN or an infinity gets q = 0 and scale = NaN, so that it spoils the result
// as the float product would have. When 127 / a overflows (a below 2^-121 or so), q = 0 and scale =
// 0. To f8_e4m3 the same of whole rows, with 448 instead of 127 and the type's own rounding.
struct QuantiseArgs {
  const float* x = nullptr;  // [rows, k], row stride x_stride
  std::byte* y = nullptr;    // row stride isa::QuantisedRowBytes(k, type), 64-byte aligned
  int64_t k = 0;
  int64_t x_stride = 0;     // in elements
  DType type = DType::kI8;  // or f8_e4m3
};

// For each row of logits [experts]: the `choices` largest, of equals the lowest index first, NaN
// below everything; their weights, m being the largest logit and e = Exp(logit - m):
//   normalise: e / (0 + e_0 + e_1 + ...), summed in order of choice; else e / sum_exp(all, m, 1)
// and the expert list of all rows (isa/layout.h). One call does all rows.
struct RouteArgs {
  const float* logits = nullptr;  // [rows, experts], row stride logits_stride
  int32_t* list = nullptr;        // isa::ExpertListBytes
  float* weights = nullptr;       // [rows, choices], row stride weights_stride
  int64_t rows = 0;
  int64_t experts = 0;
  int64_t choices = 0;  // 1 .. min(experts, isa::kMaxChoices)
  int64_t logits_stride = 0;
  int64_t weights_stride = 0;
  bool normalise = false;
};

// y[c] = residual[c] + z, or z without a residual, where z = weights[0] * x[0][c] and then for j =
// 1 .. choices-1 in order z = fma(weights[j], x[j][c], z); x[j] = columns [j * cols, (j + 1) *
// cols).
struct CombineArgs {
  const float* x = nullptr;         // [rows, choices * cols], row stride x_stride
  const float* weights = nullptr;   // [rows, choices], row stride weights_stride
  const float* residual = nullptr;  // [rows, cols] or null; may be y
  float* y = nullptr;               // [rows, cols]
  int64_t cols = 0;
  int64_t choices = 0;
  int64_t x_stride = 0;
  int64_t weights_stride = 0;
  int64_t residual_stride = 0;
  int64_t y_stride = 0;
};

// Within each group of `group` consecutive columns (the whole row, or one head):
//   lane j = fma over columns c = j, j+16, ... in order: acc[j] = fma(x[c], x[c], acc[j])
//   inv = 1 / sqrt(sum16(acc) / group + epsilon);  y[c] = (x[c] * inv) * weight[c]
// y may be x.
struct RmsNormArgs {
  const float* x = nullptr;       // [rows, cols], row stride x_stride
  const float* weight = nullptr;  // [group]
  float* y = nullptr;
  int64_t cols = 0;
  int64_t group = 0;  // divides cols
  int64_t x_stride = 0;
  int64_t y_stride = 0;
  float epsilon = 0;
};

// table[r, i] = cos(a) * scale, table[r, half + i] = sin(a) * scale, a = float(position[r]) *
// inv_freq[i], the product rounded to f32 as the reference implementation does. Sine and cosine
// are computed in float64 by this library's own reduction and polynomial, then rounded once.
struct RopeTableArgs {
  const int32_t* positions = nullptr;  // [rows]
  const float* inv_freq = nullptr;     // [half]
  float* table = nullptr;              // [rows, 2 * half], contiguous
  int64_t half = 0;
  float scale = 1;
};

// Rotates each head of head_dim = 2 * half columns in place (the "half split" form of RoPE):
//   a = x[i], b = x[half + i]:  x[i] = a*cos - b*sin;  x[half + i] = b*cos + a*sin.
struct RopeArgs {
  float* x = nullptr;            // [rows, heads * head_dim], row stride x_stride
  const float* table = nullptr;  // [rows, 2 * half]
  int64_t heads = 0;
  int64_t half = 0;
  int64_t x_stride = 0;
};

// Writes one row's K and V of every KV head into its page slot, rounding to the page type. In i8, K
// and V of a head each as QuantiseArgs has it, with one scale for all of head_dim; in f8_e4m3
// without a scale, what is too large becoming the largest value.
struct KvAppendArgs {
  const float* k = nullptr;  // [kv_heads * head_dim]
  const float* v = nullptr;
  std::byte* page = nullptr;  // [kv_heads] head parts (isa/layout.h)
  int64_t slot = 0;           // position % kPagePositions
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  DType kv_type = DType::kF32;
};

// Causal attention of `query_rows` consecutive rows of one sequence, for the `group` query heads
// that share one KV head. Row r stands at position first_position + r and sees positions
// 0 .. first_position + r; with a window, only the last `window` of these. For one row and head,
// over the segments of isa::kAttentionSegment absolute positions that it sees any of:
//   s[p] = (fma chain over d = 0 .. head_dim-1 of q[d] * widen(K[p][d]), from 0) * scale
//          in i8 pages: ((the chain over float(K.q)) * K's scale of p) * scale
//   m = max s;  e[p] = Exp(s[p] - m);  l = sum16 over lanes j = p % 16, each lane adding in order
//   o[c] = fma chain over visible p in order of e[p] * widen(V[p][c]), from 0
//          in i8 pages: of (e[p] * V's scale of p) * float(V.q[p][c])
// and over segments in order, M, L, O starting as the first segment's:
//   M' = max(M, m), a = Exp(M - M'), b = Exp(m - M');  L = L*a + l*b;  O = O*a + o*b;  M = M'
// out[c] = O[c] * (1 / L). A position that a row does not see never touches that row's sums.
struct AttentionArgs {
  const float* q = nullptr;        // first row, first head of the group; heads are head_dim apart
  float* out = nullptr;            // likewise
  const std::byte* kv = nullptr;   // the layer's page pool
  const int32_t* pages = nullptr;  // page of each 16 positions of this sequence
  int64_t page_bytes = 0;          // stride between pages in the pool
  int64_t head_offset_bytes = 0;   // of this KV head inside a page
  int64_t q_stride = 0;            // between rows, in elements
  int64_t out_stride = 0;
  int64_t query_rows = 0;
  int64_t group = 0;
  int64_t head_dim = 0;  // <= isa::kMaxHeadDim, even
  int64_t first_position = 0;
  int64_t window = 0;  // 0: all
  float scale = 1;
  DType kv_type = DType::kF32;
};

struct KernelSet {
  const char* name;          // "scalar", "avx2", "avx512", "avx512vnni"
  const char* instructions;  // the exact extensions it uses, e.g. "AVX2 FMA F16C"

  // Output blocks [block_begin, block_end) of 16 channels of w; with kSiluGate both are even.
  void (*matmul)(const MatMulArgs&, int64_t block_begin, int64_t block_end);
  void (*contract)(const ContractArgs&);
  void (*pool_rows)(const BagArgs&);
  // Rows [row_begin, row_end).
  void (*quantise)(const QuantiseArgs&, int64_t row_begin, int64_t row_end);
  void (*route)(const RouteArgs&);
  void (*combine)(const CombineArgs&, int64_t row_begin, int64_t row_end);
  // Rows [row_begin, row_end).
  void (*rms_norm)(const RmsNormArgs&, int64_t row_begin, int64_t row_end);
  void (*rope_table)(const RopeTableArgs&, int64_t row_begin, int64_t row_end);
  void (*rope)(const RopeArgs&, int64_t row_begin, int64_t row_end);
  void (*kv_append)(const KvAppendArgs&);
  void (*attention)(const AttentionArgs&);
  // Row `row` of a packed weight of any type, widened to f32, to y[0 .. k-1]. Block types: d * q;
  // (d * scale) * q - dmin * min, each product and the difference rounded. f8_e4m3: q * scale.
  void (*gather_packed)(const std::byte* w, DType type, int64_t k, int64_t row, float* y);
  // Index of the largest value, the lowest of equals; NaN is never the largest. n >= 1.
  int64_t (*argmax)(const float* x, int64_t n);
  // sum16 over lanes j = i % 16 of Exp((x[i] - offset) * scale), each lane adding in order.
  float (*sum_exp)(const float* x, int64_t n, float offset, float scale);
};

// The definition of every result above, plain C++. Runs anywhere.
const KernelSet& ScalarKernels();
// Null where the processor (or the operating system's saved state) lacks the instructions.
const KernelSet* Avx2Kernels();
const KernelSet* Avx512Kernels();
const KernelSet* Avx512VnniKernels();

// The sets this machine can run, fastest first; the scalar set is always last.
std::vector<const KernelSet*> AvailableKernels();

// "auto" or a set's name. Errors: kInvalidArgument for an unknown name; kUnsupported, naming the
// instructions that this machine lacks.
Result<const KernelSet*> SelectKernels(std::string_view name);

}  // namespace millpower::kernels
