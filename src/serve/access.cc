#include "serve/access.h"

#include <algorithm>

#include "base/check.h"
#include "ledger/ledger.h"

namespace millpower::serve {
namespace {

// The scheme's name is of any case (RFC 9110, 11.1); spaces around the key are not part of it.
std::string_view BearerOf(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  const bool is_bearer = authorization.size() > kScheme.size() &&
                         std::ranges::equal(authorization.substr(0, kScheme.size()), kScheme,
                                            [](unsigned char a, char b) {
                                              return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b;
                                            });
  if (!is_bearer) return {};
  authorization.remove_prefix(kScheme.size());
  const size_t begin = std::min(authorization.find_first_not_of(' '), authorization.size());
  authorization.remove_prefix(begin);
  return authorization.substr(0, authorization.find_last_not_of(' ') + 1);
}

bool IsIn(const std::vector<std::string>& scope, std::string_view name) {
  return scope.empty() || std::ranges::find(scope, name) != scope.end();
}

Result<void> CheckEndpoint(const ledger::Key& key, std::string_view endpoint) {
  if (endpoint.empty() || IsIn(key.endpoints, endpoint)) return {};
  return Fail(ErrorCode::kForbidden,
              "the API key is not for this endpoint ('" + std::string(endpoint) + "')");
}

}  // namespace

Result<std::shared_ptr<const Caller>> Access::Authenticate(const HttpRequest& request,
                                                           std::string_view endpoint) const {
  if (request.caller != nullptr) TRY(CheckEndpoint(*request.caller->key, endpoint));
  if (request.caller != nullptr || is_open()) return request.caller;
  const std::string_view secret = BearerOf(request.authorization);
  if (secret.empty())
    return Fail(ErrorCode::kUnauthenticated,
                "no API key was given: send the header Authorization: Bearer and your key");
  auto caller = std::make_shared<Caller>();
  caller->directory = ledger_->directory();
  const ledger::Key* const key = caller->directory->FindSecret(secret);
  if (key == nullptr) return Fail(ErrorCode::kUnauthenticated, "the API key is not a valid one");
  const int64_t now = clock_.UnixSeconds();
  if (key->revoked_at != 0)
    return Fail(ErrorCode::kUnauthenticated, "the API key has been revoked");
  if (key->expires_at != 0 && key->expires_at <= now)
    return Fail(ErrorCode::kUnauthenticated, "the API key has expired");
  caller->key = key;
  caller->project = caller->directory->FindProject(key->project);
  caller->tenant = caller->directory->FindTenant(key->tenant);
  CHECK(caller->project != nullptr && caller->tenant != nullptr) << key->id;
  if (caller->tenant->suspended)
    return Fail(ErrorCode::kForbidden, "the account is suspended: speak to the operator");
  TRY(CheckEndpoint(*key, endpoint));
  return caller;
}

bool MayUseModel(const Caller* caller, std::string_view model) {
  return caller == nullptr || IsIn(caller->key->models, model);
}

}  // namespace millpower::serve
