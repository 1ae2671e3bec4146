#include "cli/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

namespace millpower::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A version 1 file as numpy writes it.
std::vector<std::byte> File(std::string header, std::string_view data) {
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(header.size() & 0xff);
  file += static_cast<char>(header.size() >> 8);
  file += header;
  file += data;
  const auto bytes = std::as_bytes(std::span(file));
  return {bytes.begin(), bytes.end()};
}

std::string ErrorOf(const std::vector<std::byte>& file) {
  const auto array = ParseNpy(file);
  return array ? "none" : array.error().message;
}

TEST(NpyTest, ReadsWhatItWrites) {
  const auto path = std::filesystem::temp_directory_path() / "millpower_npy_test.npy";
  const std::vector<int64_t> values = {1, -2, 3, 4, 5, 6};
  const int64_t shape[] = {2, 3};
  ASSERT_TRUE(WriteNpy(path, DType::kI64, shape, std::as_bytes(std::span(values))));
  const auto array = ReadNpy(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(array) << array.error().message;
  EXPECT_EQ(array->dtype, DType::kI64);
  EXPECT_THAT(array->shape, ElementsAre(2, 3));
  EXPECT_EQ(std::memcmp(array->bytes.data(), values.data(), 48), 0);
}

TEST(NpyTest, ReadsScalarsAndStrings) {
  const auto scalar =
      ParseNpy(File("{'descr': '|u1', 'fortran_order': False, 'shape': (), }", "\x07"));
  ASSERT_TRUE(scalar) << scalar.error().message;
  EXPECT_TRUE(scalar->shape.empty());
  const auto bytes = ParseNpy(File("{'descr': '|S3', 'fortran_order': False, 'shape': (2,), }",
                                   std::string_view("ab\0cde", 6)));
  ASSERT_TRUE(bytes) << bytes.error().message;
  EXPECT_THAT(bytes->strings, ElementsAre("ab", "cde"));
  const auto points = ParseNpy(File("{'descr': '<U2', 'fortran_order': False, 'shape': (1,), }",
                                    std::string_view("\xe9\0\0\0\0\0\0\0", 8)));
  ASSERT_TRUE(points) << points.error().message;
  EXPECT_THAT(points->strings, ElementsAre("\xc3\xa9"));
}

TEST(NpyTest, RefusesWhatIsNotSound) {
  EXPECT_THAT(ErrorOf({}), HasSubstr("begins otherwise"));
  const std::string ok = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
  EXPECT_THAT(ErrorOf(File(ok, "1234567")), HasSubstr("bytes"));
  EXPECT_THAT(ErrorOf(File("{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }", "12345678")),
              HasSubstr("C order"));
  EXPECT_THAT(
      ErrorOf(File("{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", "12345678")),
      HasSubstr(">f4"));
  EXPECT_THAT(
      ErrorOf(File("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 8), }",
                   "")),
      HasSubstr("shape"));
  EXPECT_THAT(ErrorOf(File("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "")),
              HasSubstr("shape"));
  auto truncated = File(ok, "12345678");
  truncated.resize(40);
  EXPECT_THAT(ErrorOf(truncated), HasSubstr("truncated"));
}

}  // namespace
}  // namespace millpower::cli
