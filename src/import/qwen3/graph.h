// The Qwen3 language model as a graph, in the straight form of its definition: no operator is
// fused, the compiler does that. Weights have the names of their Hugging Face tensors.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "import/qwen3/config.h"
#include "ir/graph.h"
#include "ir/weights.h"

namespace millpower::import {

// The most that one launch takes: the bounds of the graph's symbols.
struct GraphOptions {
  int64_t max_rows = 512;           // "rows": tokens of one launch, of all sequences together
  int64_t max_seqs = 64;            // "seqs"
  int64_t max_picked = 64;          // "picked": rows whose next token is wanted
  int64_t max_adjusts = 1 << 16;    // "adjusts": single tokens that requests change the odds of
  int64_t max_pages = 1 << 20;      // "pages": of the KV cache
  int64_t page_positions = 16;      // positions of one page; as isa/layout.h
  int64_t sample_param_words = 12;  // of a row of "sampling" and of "sampled"; as isa/sampling.h
  int64_t sample_adjustment_words = 2;  // of a row of "adjustments"
  int64_t sample_record_words = 44;
  // Tensor parallelism: over how many chips the model is spread, and which of them the graph is
  // for. Graphs of all ranks are equal but for the slices of their weights.
  int64_t ranks = 1;
  int64_t rank = 0;
  // Pipeline parallelism: into how many graphs the layers are cut, one after the other, and which
  // of them this is.
  int64_t stages = 1;
  int64_t stage = 0;
};

// Inputs, all i32:
//   tokens [rows] < vocab, positions [rows]
//   sequences [seqs, 4], pages [page_entries] < pages   as the chip's attention takes them
//   picked_rows [picked] < rows, sampling [picked, 12]
//   adjust_tokens [adjusts] < vocab, adjustments [adjusts, 2]
// Outputs: logits [picked, vocab] f32, sampled [picked, 44] i32.
// Facts: vocab_size, max_positions, hidden, layers, heads, kv_heads, head_dim; of a model with
// experts, experts and experts_per_token; and parameters, the number of values in all weights (a
// tied head is not counted again; all experts are).
//
// The weights of a layer's experts are one value for each projection,
// "model.layers.N.mlp.experts.gate_proj.weight" [experts, inner, hidden] and so on, whose slices
// say where the files have them: a tensor for each expert, or all in one.
//
// With several ranks, each has a part of the heads, of the inner columns of MLPs and of every
// expert, and of the vocabulary of the head: q, k, v, gate, up and the head are cut by output
// channels, o and down by steps of the reduction, with a collective after each of o, down and head.
// KV heads that are fewer than ranks stand on several. The embedding, norms and routers are on all;
// so is a head whose vocabulary the ranks do not divide.
//
// With several stages, each has as many of the layers as the others, or one more. The first takes
// the tokens, the last has the head and the outputs above; between them go the rows of the residual
// stream: input "hidden" [rows, hidden] f32, and as the only output the value that the next stage
// has for it. KV pages are of a stage's own layers. A tied head's weight is on both ends.
//
// With `weights`, every weight takes the type it has in its file; without, the config's.
// Errors: those of Validate; kInvalidArgument (an option below 1 or above 2^20, a rank that is not
// there); kUnsupported (ranks that do not divide the model, more stages than layers); kCorrupt when
// tensors are missing from `weights`, have another shape, or a type that we do not read: it counts
// them all and names the first few.
Result<ir::Graph> BuildQwen3Graph(const Qwen3Config& config, const GraphOptions& options = {},
                                  const ir::WeightSource* weights = nullptr);

}  // namespace millpower::import
