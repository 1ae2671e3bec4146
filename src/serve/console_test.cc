// The console's files, and that no path reaches anything else.
#include "serve/console.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

namespace millpower::serve {
namespace {

namespace fs = std::filesystem;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class ConsoleTest : public testing::Test {
 protected:
  ConsoleTest() { AddConsoleRoutes(router_); }

  // The answer as it goes over the wire.
  std::string Ask(const std::string& path, const std::string& method = "GET") const {
    const auto exchange = std::make_shared<Exchange>(
        HttpRequest{
            .method = method, .path = path, .content_type = "", .id = "r", .body = std::string()},
        1 << 20);
    router_.Handle(exchange);
    return exchange->Take().bytes;
  }

  Router router_;
};

TEST_F(ConsoleTest, HoldsEveryFileToTheByte) {
  const fs::path root = fs::path(MILLPOWER_SOURCE_DIR) / "console";
  std::set<std::string> on_disk, embedded;
  for (const auto& entry : fs::recursive_directory_iterator(root))
    if (entry.is_regular_file()) on_disk.insert(fs::relative(entry.path(), root).generic_string());
  for (const EmbeddedFile& file : ConsoleFiles()) {
    embedded.insert(std::string(file.path));
    std::ifstream stream(root / file.path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
    EXPECT_EQ(file.bytes, bytes) << file.path;
    // Nothing in a name needs escaping, so that paths need no decoding.
    EXPECT_EQ(file.path.find_first_not_of("abcdefghijklmnopqrstuvwxyz_-./"), std::string::npos);
  }
  EXPECT_EQ(embedded, on_disk);
  EXPECT_TRUE(embedded.contains("index.html"));
}

TEST_F(ConsoleTest, ServesTheIndexAndTheRest) {
  EXPECT_THAT(Ask("/console"), StartsWith("HTTP/1.1 308 "));
  EXPECT_THAT(Ask("/console"), HasSubstr("\r\nlocation: /console/\r\n"));
  const std::string index = Ask("/console/");
  EXPECT_THAT(index, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(index, HasSubstr("<!doctype html>"));
  EXPECT_EQ(index, Ask("/console/index.html"));
  for (const EmbeddedFile& file : ConsoleFiles()) {
    const std::string answer = Ask("/console/" + std::string(file.path));
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
    EXPECT_THAT(answer, EndsWith("\r\n\r\n" + std::string(file.bytes)));
  }
  EXPECT_THAT(Ask("/console/app.js", "HEAD"), EndsWith("\r\n\r\n"));
}

TEST_F(ConsoleTest, SaysWhatEachFileIsAndBindsTheBrowser) {
  EXPECT_THAT(Ask("/console/"), HasSubstr("\r\ncontent-type: text/html; charset=utf-8\r\n"));
  EXPECT_THAT(Ask("/console/app.js"),
              HasSubstr("\r\ncontent-type: text/javascript; charset=utf-8\r\n"));
  EXPECT_THAT(Ask("/console/console.css"),
              HasSubstr("\r\ncontent-type: text/css; charset=utf-8\r\n"));
  EXPECT_THAT(Ask("/console/icon.svg"), HasSubstr("\r\ncontent-type: image/svg+xml\r\n"));
  for (const EmbeddedFile& file : ConsoleFiles()) {
    const std::string answer = Ask("/console/" + std::string(file.path));
    EXPECT_THAT(answer, Not(HasSubstr("\r\ncontent-type: application/"))) << file.path;
    EXPECT_THAT(answer, HasSubstr("\r\ncontent-security-policy: default-src 'self'; "));
    EXPECT_THAT(answer, HasSubstr("frame-ancestors 'none'"));
    EXPECT_THAT(answer, HasSubstr("require-trusted-types-for 'script'"));
    EXPECT_THAT(answer, Not(HasSubstr("unsafe")));
    EXPECT_THAT(answer, HasSubstr("\r\nx-content-type-options: nosniff\r\n"));
    EXPECT_THAT(answer, HasSubstr("\r\nreferrer-policy: no-referrer\r\n"));
    EXPECT_THAT(answer, HasSubstr("\r\ncache-control: no-cache\r\n"));
  }
}

TEST_F(ConsoleTest, NoPathLeadsOutOfTheTable) {
  const std::string nul("/console/app.js\0", 16);
  for (const std::string& path : {std::string("/console/../app.js"),
                                  std::string("/console/%2e%2e/app.js"),
                                  std::string("/console/..%2fapp.js"),
                                  std::string("/console/%2e%2e%2f%2e%2e%2fetc%2fpasswd"),
                                  std::string("/console/pages%2fusage.js"),
                                  std::string("/console/pages%2Fusage.js"),
                                  std::string("/console/pages\\usage.js"),
                                  std::string("/console/%61pp.js"),
                                  std::string("/console/app.js%00"),
                                  std::string("/console/app.js%00.html"),
                                  nul,
                                  std::string("/console//app.js"),
                                  std::string("/console//"),
                                  std::string("/console/./app.js"),
                                  std::string("/console/app.js/"),
                                  std::string("/console/pages"),
                                  std::string("/console/pages/"),
                                  std::string("/console/pages/../app.js"),
                                  std::string("/console/App.js"),
                                  std::string("/console//etc/passwd"),
                                  std::string("/console/%2fetc/passwd"),
                                  std::string("/console/\xc0\xae\xc0\xae/app.js"),
                                  std::string("/console/" + std::string(9000, 'a')),
                                  std::string("/consoles/"),
                                  std::string("/Console/"),
                                  std::string("//console/")})
    EXPECT_THAT(Ask(path), StartsWith("HTTP/1.1 404 ")) << path;
}

TEST_F(ConsoleTest, TakesNothing) {
  for (const char* method : {"POST", "PUT", "DELETE", "PATCH"}) {
    EXPECT_THAT(Ask("/console/", method), StartsWith("HTTP/1.1 405 "));
    EXPECT_THAT(Ask("/console/app.js", method), StartsWith("HTTP/1.1 405 "));
  }
}

}  // namespace
}  // namespace millpower::serve
