// Who asks, and with what rights.
#pragma once

#include <memory>

#include "ledger/directory.h"

namespace millpower::serve {

// Immutable: a request keeps what it found, even if the key changes meanwhile.
struct Caller {
  std::shared_ptr<const ledger::Directory> directory;  // keeps what follows alive
  const ledger::Tenant* tenant = nullptr;
  const ledger::Project* project = nullptr;
  const ledger::Key* key = nullptr;
  bool is_batch = false;  // a line of a batch: batch tier and priority, whatever the body says
};

}  // namespace millpower::serve
