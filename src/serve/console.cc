#include "serve/console.h"

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <utility>

#include "serve/errors.h"

namespace millpower::serve {
namespace {

constexpr std::string_view kRoot = "/console/";
constexpr const char* kRouteName = "console";

constexpr std::array<std::pair<std::string_view, const char*>, 4> kContentTypes = {{
    {".html", "text/html; charset=utf-8"},
    {".css", "text/css; charset=utf-8"},
    {".js", "text/javascript; charset=utf-8"},
    {".svg", "image/svg+xml"},
}};

// Content Security Policy Level 3. Scripts and styles come from files of ours only; with trusted
// types that no policy may make, a script that hands text to the HTML parser is stopped by the
// browser, so that a name can never become markup.
constexpr const char* kSecurityPolicy =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const char* ContentType(std::string_view path) {
  for (const auto& [ending, type] : kContentTypes)
    if (path.ends_with(ending)) return type;
  return "application/octet-stream";
}

void Answer(const std::shared_ptr<Exchange>& exchange) {
  const std::string& asked = exchange->request().path;
  const std::string_view below = std::string_view(asked).substr(kRoot.size());
  const std::string_view path = below.empty() ? "index.html" : below;
  const auto files = ConsoleFiles();
  const auto file = std::ranges::find(files, path, &EmbeddedFile::path);
  if (file == files.end()) {
    exchange->Reply(ErrorResponse(HttpFault::kNoSuchPath, "no such path: " + asked));
    return;
  }
  exchange->Reply({.content_type = ContentType(path),
                   .body = std::string(file->bytes),
                   .headers = {{"cache-control", "no-cache"},
                               {"content-security-policy", kSecurityPolicy},
                               {"cross-origin-opener-policy", "same-origin"},
                               {"referrer-policy", "no-referrer"},
                               {"x-content-type-options", "nosniff"}}});
}

}  // namespace

void AddConsoleRoutes(Router& router) {
  const auto redirect = [](const std::shared_ptr<Exchange>& exchange, const PathArguments&) {
    exchange->Reply({.status = 308,
                     .content_type = "text/plain; charset=utf-8",
                     .body = "the console is at /console/\n",
                     .headers = {{"location", std::string(kRoot)}}});
  };
  const auto answer = [](const std::shared_ptr<Exchange>& exchange, const PathArguments&) {
    Answer(exchange);
  };
  router.Add({"GET", "/console", kRouteName, redirect});
  router.Add({"GET", "/console/", kRouteName, answer});
  router.Add({"GET", "/console/{path...}", kRouteName, answer});
}

}  // namespace millpower::serve
