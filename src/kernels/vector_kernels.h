// The kernels once more, for any vector instruction set: templates over a type V that names a
// vector of 16 float lanes (one AVX-512 register, two AVX2 ones) and its operations, in the order
// of operations that kernels.h fixes. Included by the files of the sets only.
//
// Those files are compiled for newer processors, so nothing of theirs may reach the linker under a
// name that other files also define: it could keep the copy that the baseline cannot run. Hence
// everything here is in an anonymous namespace and the standard library's functions stay out; the
// test kernels_symbols holds the object files to that.
//
// V provides (see avx512_vector.h): Float, Mask, kTileRows, kSquareRows, kTileVectors, for
// quantised rows, kQuantisedRows, kQuantisedVectors; Zero, Set1, Load, Store, MaskedLoad (0 in the
// other lanes), MaskedStore, FirstLanes; Fma(a, b, c) = a * b + c, Add, Sub, Mul, Div, Max(a, b) (b
// where a is NaN), Negate; LessThan, Equal, Select(mask, yes, no), AnyLane; WidenEven and WidenOdd
// of a line of bf16 pairs; LoadBf16 and MaskedLoadBf16 of 16 consecutive bf16; LoadI8,
// MaskedLoadI8, LoadU8, LoadF16 of 16 consecutive bytes and halves, LoadI4 of 8 bytes of nibbles q
// + 8, and WidenByte<j>, byte j of each lane of a line; ShiftExponent(p, n) = p * 2^n with n as the
// low bits of kRoundMagic + n. Abs, AllLanes, MaxLane (no NaN); Int: SetInt, AddInt, FromInt,
// RoundToInt (ties to even), SumLanes, StoreI8; and what vector_quantised.h says.
#pragma once

#include "kernels/kernel_sets.h"
#include "kernels/vector_attention.h"
#include "kernels/vector_bag.h"
#include "kernels/vector_contract.h"
#include "kernels/vector_matmul.h"
#include "kernels/vector_rows.h"

namespace millpower::kernels {
namespace {

template <class V>
constexpr KernelSet MakeKernelSet(const char* name, const char* instructions) {
  return {
      .name = name,
      .instructions = instructions,
      .matmul = MatMul<V>,
      .contract = Contract<V>,
      .pool_rows = PoolRows<V>,
      .quantise = Quantise<V>,
      .route = Route<V>,
      .combine = Combine<V>,
      .rms_norm = RmsNorm<V>,
      .rope_table = ScalarRopeTable,
      .rope = Rope<V>,
      .kv_append = ScalarKvAppend,
      .attention = Attention<V>,
      .gather_packed = ScalarGatherPacked,
      .argmax = ArgMax<V>,
      .sum_exp = SumExp<V>,
  };
}

}  // namespace
}  // namespace millpower::kernels
