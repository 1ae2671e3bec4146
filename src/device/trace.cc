#include "device/trace.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

namespace millpower::device {

Result<std::unique_ptr<TraceFile>> TraceFile::Open(const std::filesystem::path& path) {
  std::FILE* file = std::fopen(path.c_str(), "we");
  if (file == nullptr)
    return Fail(ErrorCode::kIo, "cannot write " + path.string() + ": " + std::strerror(errno));
  return std::unique_ptr<TraceFile>(new TraceFile(file));
}

TraceFile::~TraceFile() {
  if (file_ != nullptr) std::fclose(file_);
}

void TraceFile::Write(const std::string& event) {
  const std::lock_guard lock(mutex_);
  if (file_ == nullptr) return;  // closed
  const std::string line = (first_ ? "[\n" : ",\n") + event;
  first_ = false;
  failed_ |= std::fwrite(line.data(), 1, line.size(), file_) != line.size();
}

void TraceFile::NameRow(int process, int thread, std::string_view process_name,
                        std::string_view thread_name) {
  Write(fmt::format(R"({{"ph":"M","pid":{},"tid":0,"name":"process_name","args":{{"name":"{}"}}}})",
                    process, process_name));
  Write(fmt::format(R"({{"ph":"M","pid":{},"tid":{},"name":"thread_name","args":{{"name":"{}"}}}})",
                    process, thread, thread_name));
}

void TraceFile::Add(int process, int thread, std::string_view name, double begin_us,
                    double duration_us, std::string_view arguments) {
  Write(fmt::format(R"({{"ph":"X","pid":{},"tid":{},"name":"{}","ts":{:.3f},"dur":{:.3f},)"
                    R"("args":{{{}}}}})",
                    process, thread, name, begin_us, duration_us, arguments));
}

Result<void> TraceFile::Close() {
  const std::lock_guard lock(mutex_);
  const char* end = first_ ? "[]\n" : "\n]\n";
  failed_ |= std::fwrite(end, 1, std::strlen(end), file_) != std::strlen(end);
  failed_ |= std::fclose(std::exchange(file_, nullptr)) != 0;
  if (failed_) return Fail(ErrorCode::kIo, "the trace could not be written in full");
  return {};
}

}  // namespace millpower::device
