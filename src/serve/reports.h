// Usage and invoices over HTTP: for the operator about everybody, for a tenant about itself. They
// wait for the disk.
#pragma once

#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "ledger/ledger.h"
#include "serve/exchange.h"
#include "serve/router.h"

namespace millpower::serve {

// Whom a report is about. A tenant finds nothing of others: their ids are not found.
struct ReportScope {
  const ledger::Directory& directory;
  const ledger::Tenant* tenant = nullptr;  // null: all, and `tenant` is a parameter
};

// Errors of all: kInvalidArgument, naming the parameter; kNotFound; the store's.

// What was used: `from`, `to`, `project`, `key`, `model`, `request_id`; `group_by`; `format` json
// or csv.
Result<HttpResponse> AnswerUsage(const ledger::Ledger& ledger, const ReportScope& scope,
                                 const Query& query);
// Row by row, newest first: the same, with `limit` and `before` (a row's number).
Result<HttpResponse> AnswerUsageRows(const ledger::Ledger& ledger, const ReportScope& scope,
                                     const Query& query);
// One for each month in which a tenant used anything.
Result<HttpResponse> AnswerInvoices(const ledger::Ledger& ledger, const ReportScope& scope,
                                    const Query& query, const Clock& clock);
// Of `month` "2026-11"; `format` json, text or html.
Result<HttpResponse> AnswerInvoice(const ledger::Ledger& ledger, const ledger::Directory& directory,
                                   const ledger::Tenant& tenant, const std::string& month,
                                   const Query& query);

}  // namespace millpower::serve
