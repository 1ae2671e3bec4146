// A request that has been checked and waits for its launch. Internal to the engine.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ranking/engine.h"
#include "ranking/layout.h"

namespace millpower::ranking {

struct Pending {
  Request request;
  Callback callback;
  std::vector<int64_t> registers;                 // of this request alone; others 0
  std::vector<std::span<const std::byte>> bytes;  // by fill, of the buffer's type
  std::vector<std::vector<std::byte>> looked_up;  // what some of them view
  int64_t size_bytes = 0;
  int64_t submitted_ns = 0;
  int64_t due_ns = 0;  // no longer held back for others from then on
  bool alone = false;  // joined with nobody

  int64_t rows(const Layout& layout) const {
    return layout.batch < 0 ? 1 : registers[static_cast<size_t>(layout.batch)];
  }
};

// Finds out the sizes of a request and does its lookups. `max_batch`: rows at most. Errors: those
// of Engine::Submit that concern the tensors.
Result<std::unique_ptr<Pending>> MakePending(const Model& model, const Layout& layout,
                                             Request request);

// Whether a request may share a launch with one that is in it already. (What adds up is not looked
// at.)
bool MayJoin(const Layout& layout, const Pending& a, const Pending& b);

}  // namespace millpower::ranking
