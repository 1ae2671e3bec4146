// The admin API's endpoints, a file for each noun. They run in a lane of their own, because they
// wait for the disk; several at a time.
#pragma once

#include <filesystem>
#include <mutex>
#include <span>

#include "base/clock.h"
#include "base/json.h"
#include "base/result.h"
#include "ledger/ledger.h"
#include "serve/exchange.h"
#include "serve/model_host.h"
#include "serve/router.h"

namespace millpower::serve::admin {

// What changes are signed with in the audit log.
inline const std::string kActor = "admin";

struct Context {
  ModelHost& host;
  const std::filesystem::path model_root;
  ledger::Ledger* const ledger;  // null: nothing is billed
  const Clock& clock;
  // Held from reading what is there to writing it changed, so that of two changes to one thing
  // neither is lost.
  std::mutex changing = {};
};

struct Request {
  PathArguments path;
  Query query;
  Json body;  // an object, empty if the request has none
};

using Answer = Result<HttpResponse>;

struct Endpoint {
  const char* method;
  const char* pattern;
  Answer (*answer)(Context&, const Request&);
  bool needs_ledger = true;
  bool has_body = false;
};

std::span<const Endpoint> AuditEndpoints();
std::span<const Endpoint> BookEndpoints();  // verify, backup
std::span<const Endpoint> InvoiceEndpoints();
std::span<const Endpoint> KeyEndpoints();
std::span<const Endpoint> LeaseEndpoints();
std::span<const Endpoint> ModelEndpoints();
std::span<const Endpoint> OverviewEndpoints();
std::span<const Endpoint> PriceEndpoints();
std::span<const Endpoint> ProjectEndpoints();
std::span<const Endpoint> TenantEndpoints();
std::span<const Endpoint> UsageEndpoints();

}  // namespace millpower::serve::admin
