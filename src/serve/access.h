// Who may come in: from the key that a request shows to the caller whom it stands for.
#pragma once

#include <memory>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "serve/caller.h"
#include "serve/exchange.h"

namespace millpower::ledger {
class Ledger;
}

namespace millpower::serve {

// Names of endpoints, as a key's scope lists them.
inline constexpr const char* kChatScope = "chat";
inline constexpr const char* kCompletionsScope = "completions";
inline constexpr const char* kTokenizeScope = "tokenize";  // and detokenize
inline constexpr const char* kModelsScope = "models";
inline constexpr const char* kBatchesScope = "batches";
inline constexpr const char* kFilesScope = "files";
inline constexpr const char* kInferenceScope = "inference";  // both inference APIs
inline constexpr const char* kUsageScope = "usage";          // account, usage, invoices, stats

// Thread-safe; never waits.
class Access {
 public:
  // Both outlive it. Without a ledger everybody may do everything.
  Access(const ledger::Ledger* ledger, const Clock& clock) : ledger_(ledger), clock_(clock) {}

  bool is_open() const { return ledger_ == nullptr; }

  // The caller of a request: `request.caller` if we ask ourselves (of whom only the endpoint is
  // looked at; the ledger refuses what else is over), else whom the key of its
  // Authorization header stands for at this moment; null if it is open. `endpoint` "": whichever.
  // Errors: kUnauthenticated (no key, a wrong one, one that is over); kForbidden (a suspended
  // tenant, an endpoint out of the key's scope). No error repeats anything of what was shown.
  Result<std::shared_ptr<const Caller>> Authenticate(const HttpRequest& request,
                                                     std::string_view endpoint) const;

 private:
  const ledger::Ledger* const ledger_;
  const Clock& clock_;
};

// Whether a caller's key is for a model; null callers and keys without a list are for all.
bool MayUseModel(const Caller* caller, std::string_view model);

}  // namespace millpower::serve
