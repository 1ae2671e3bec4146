// The engine of one language model: a thread that plans a step, launches it, hands out the tokens,
// and again. Sequences share every step (continuous batching); results do not depend on company.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "device/device.h"
#include "engine/engine.h"

namespace millpower::engine {

struct LlmOptions {
  int32_t max_model_len = 0;       // 0: what the Program and the KV pages allow
  int32_t max_num_seqs = 0;        // 0: what the Program allows; never more than the next
  int32_t max_batch_tokens = 0;    // 0: what the Program allows
  int32_t max_queue = 256;         // requests without a place before more are refused
  std::vector<int32_t> eos_ids{};  // ids that end the output
  // Whole pages of computed tokens stay findable by their content, within one caller, until memory
  // is needed. Changes no result.
  bool prefix_cache = true;
  // All three may be null (the system's clock; everything is granted; nobody watches), and outlive
  // the engine.
  const Clock* clock = nullptr;
  Hooks* hooks = nullptr;
  Observer* observer = nullptr;
  int64_t ledger_grace_ns = kLedgerGraceNs;  // tests are in a hurry
};

// Starts the engine. Destroying it cancels what is live.
// Errors: kUnsupported (the Program is no language model: which input or output it lacks);
// kInvalidArgument (an option beyond what the Program or the KV pages allow).
Result<std::unique_ptr<Engine>> StartLlmEngine(std::unique_ptr<device::LoadedProgram> program,
                                               const LlmOptions& options);

}  // namespace millpower::engine
