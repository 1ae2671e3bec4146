// What the files of this folder share behind kernels.h: the constant of each set, and the
// functions that every set takes from the scalar one, since their time does not count beside the
// rest.
#pragma once

#include "kernels/kernels.h"

namespace millpower::kernels {

// Null when the compiler's target has no such instructions (another architecture). Constants, so
// that reading them runs no code of files that are compiled for a newer processor.
extern const KernelSet* const kAvx2Set;
extern const KernelSet* const kAvx512Set;
extern const KernelSet* const kAvx512VnniSet;

// What has no vector form: products with widened weights, rows and pages of f8_e4m3.
void ScalarMatMul(const MatMulArgs& args, int64_t block_begin, int64_t block_end);
void ScalarQuantise(const QuantiseArgs& args, int64_t row_begin, int64_t row_end);
void ScalarAttention(const AttentionArgs& args);

void ScalarRopeTable(const RopeTableArgs& args, int64_t row_begin, int64_t row_end);
void ScalarKvAppend(const KvAppendArgs& args);
// The list of a route, and in its weights the logits of the chosen experts, best first.
void ScalarChooseExperts(const RouteArgs& args);
void ScalarGatherPacked(const std::byte* w, DType type, int64_t k, int64_t row, float* y);

}  // namespace millpower::kernels
