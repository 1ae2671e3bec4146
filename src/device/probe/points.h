// What the probe measures: little Programs and how they are launched. Internal.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/rng.h"
#include "device/probe/small_program.h"

namespace millpower::device::probe {

// Texts of Programs. `count` instructions of one kind, one after the other.

// Products from `steps` to `channels` numbers a row and back, by turns. Of floats each takes what
// the one before made, as in a model; blocks all take the same rows. Each has a weight of its own,
// or all of one shape have the same.
struct ProductSize {
  int64_t steps = 0, channels = 0;
  int64_t count = 1;
  bool one_weight = false;
};
std::string ProductText(const ProductSize& size, DType type);

// Products of f32 one after the other, each of what the one before made: from widths[0] numbers a
// row to widths[1], and so on.
std::string PerceptronText(std::span<const int64_t> widths);

// kv_append and, if `attends`, attention of 16 query heads over 8 KV heads of 128, bf16.
std::string AttentionText(bool attends);

// Rows of `columns` f32: normalised, copied, their softmax.
std::string NormText(int64_t columns, int64_t count);
std::string CopyText(int64_t columns, int64_t count);
std::string SoftmaxText(int64_t columns, int64_t count);

// Of `vectors` vectors of `columns` in each row, all products of two, and those of two different
// ones picked: the interaction of a DLRM.
std::string InteractionText(int64_t vectors, int64_t columns, bool picks);

// `tables` tables of `rows` rows of `columns` f32, each with ids of its own; bags of `items` rows
// of each, side by side.
std::string BagText(int64_t tables, int64_t rows, int64_t columns, int64_t items);

// All of that as a recommender has it, one after the other: a bag of one row from each of some
// tables, of `rows` rows of 16, three products of 24 numbers, the interaction of these vectors, and
// three products of its outcome.
std::string RecommenderText(std::span<const int64_t> rows);

// Sets rows and work list for `sequences` of `rows` rows each, behind `first` positions; their
// pages follow each other from `first_page` on, round `pages`.
void SetSequences(SmallProgram& program, int64_t sequences, int64_t rows, int64_t first,
                  int64_t first_page, int64_t pages);

// Ids anywhere in tables of so many rows each, as many for each of `batch` bags.
void SetIds(SmallProgram& program, std::span<const int64_t> rows, int64_t batch, int64_t items,
            Rng& rng);

}  // namespace millpower::device::probe
