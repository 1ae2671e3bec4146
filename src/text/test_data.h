// Compressed data of the tests and benchmarks, from tests/text_data.
#pragma once

#include <string>
#include <vector>

namespace millpower::text {

// The contents of tests/text_data/`name`, which is a gzip file. Stops the process if it is not.
std::string ReadTestData(const std::string& name);
std::vector<std::string> ReadTestLines(const std::string& name);

}  // namespace millpower::text
