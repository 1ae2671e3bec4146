// Weights in blocks that share scales, as model files have them (DType::kQ8_0 and on): reading them
// exactly, and making them from floats. The layouts are ggml's (github.com/ggml-org/ggml,
// ggml-common.h); all fields little-endian:
//   q8_0   34 bytes of  32 values: f16 d | i8 q[32]
//   q4_0   18 bytes of  32 values: f16 d | 16 bytes: byte i has value i low and value 16 + i high
//   q4_k  144 bytes of 256 values: f16 d | f16 dmin | 12 bytes: 8 scales and 8 minima of 6 bits
//                                  | 4 times 32 bytes for 64 values: byte i has value i low and
//                                  value 32 + i high
//   q6_k  210 bytes of 256 values: ql: twice 64 bytes | qh: twice 32 bytes | i8 scale[16] | f16 d;
//                                  128 values are 4 runs of 32: value i of run r has its low 4 bits
//                                  in half r / 2 of ql[i + 32 * (r % 2)], and its high 2 bits in
//                                  bits 2r of qh[i]
// None of the pointers need be aligned.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace millpower {

// `values` consecutive values, a whole number of blocks, as float32; also of f32, bf16 and f16.
// Each is what ggml and the `gguf` Python package make of it, to the bit: products of scales first,
// then times the quant, then less the minimum, each step rounded to float32.
void Dequantise(DType type, const std::byte* blocks, int64_t values, float* out);

// The quants of one block in the order of its values, with the bias that makes them unsigned:
// q8_0 q + 128; q4_0 q, of bias 8; q4_k q, of bias 0; q6_k q, of bias 32.
void UnpackQuants(DType type, const std::byte* block, uint8_t* quants);

// d of a block of any of the types, as its 16 bits.
uint16_t BlockScale(DType type, const std::byte* block);

// Of group g of 32 values: value = f16(d) * scale[g] * q - f16(dmin) * min[g].
struct Q4KScales {
  uint16_t d = 0;
  uint16_t dmin = 0;
  uint8_t scale[8] = {};  // 0..63
  uint8_t min[8] = {};    // 0..63
};
Q4KScales ReadQ4KScales(const std::byte* block);

// Of group g of 16 values: value = f16(d) * scale[g] * (q - 32).
struct Q6KScales {
  uint16_t d = 0;
  int8_t scale[16] = {};
};
Q6KScales ReadQ6KScales(const std::byte* block);

// Blocks of 32 from floats, by ggml's rules, to the bit as its reference (and the `gguf` package)
// rounds. `values` is a multiple of 32. Values that are not finite give some block, never undefined
// behaviour.
//   q8_0: d = max |x| / 127, q = x / d rounded, halves away from zero: in -127..127
//   q4_0: d = (the first x of the largest magnitude) / -8, q = min(15, trunc(x / d + 8.5))
void QuantiseQ8_0(const float* x, int64_t values, std::byte* blocks);
void QuantiseQ4_0(const float* x, int64_t values, std::byte* blocks);

}  // namespace millpower
