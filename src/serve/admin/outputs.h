// How the ledger's records look in the admin API's answers. Money is decimal strings, times are
// Unix seconds, and what there is none of is null.
#pragma once

#include "base/json.h"
#include "ledger/ledger.h"
#include "serve/exchange.h"

namespace millpower::serve::admin {

Json TenantJson(const ledger::Ledger& ledger, const ledger::Tenant& tenant);
Json ProjectJson(const ledger::Ledger& ledger, const ledger::Directory& directory,
                 const ledger::Project& project);
Json KeyJson(const ledger::Ledger& ledger, const ledger::Directory& directory,
             const ledger::Key& key, int64_t now);
Json LeaseJson(const ledger::Directory& directory, const ledger::Lease& lease, int64_t now);
Json UsageRowJson(const ledger::Directory& directory, const ledger::Usage& usage);

Json TimeJson(int64_t time);  // 0: null

HttpResponse JsonResponse(const Json& json, int status = 200);
HttpResponse ListResponse(Json data);

}  // namespace millpower::serve::admin
