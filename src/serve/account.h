// What a tenant is told of itself, with its own key: its account, usage, invoices, and how busy the
// server is. See docs/rental.md.
#pragma once

#include <memory>

#include "base/clock.h"
#include "base/json.h"
#include "ledger/ledger.h"
#include "serve/api.h"
#include "serve/models.h"

namespace millpower::serve {

// How busy a model is, as /v1/stats and the operator's overview tell it.
Json StatsJson(const ServedModel& model);

class Account {
 public:
  // Adds its routes to the API's. All outlive it; no request comes once it is gone.
  Account(Api& api, const ledger::Ledger& ledger, const ModelRegistry& models, const Clock& clock);
  // Waits for the answers being made.
  ~Account();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millpower::serve
