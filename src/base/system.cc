#include "base/system.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace millpower {
namespace {

// The first number of a one-line file; nullopt when it is absent or says "max".
std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

// The cgroup folders that apply to this process, for one controller: its own group and its
// ancestors, v2 and v1. A limit set on any of them binds.
std::vector<std::string> CgroupFolders(const std::string& controller) {
  std::vector<std::string> folders;
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string id, controllers, group;
    std::getline(fields, id, ':');
    std::getline(fields, controllers, ':');
    std::getline(fields, group);
    const bool v2 = controllers.empty();
    if (!v2 && ("," + controllers + ",").find("," + controller + ",") == std::string::npos)
      continue;
    const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controllers;
    for (std::string path = group;; path.erase(path.rfind('/'))) {
      folders.push_back(root + path);
      if (path.find('/') == std::string::npos || path.empty()) break;
    }
    folders.push_back(root);
  }
  return folders;
}

std::optional<int64_t> CgroupCpuCount() {
  std::optional<int64_t> count;
  auto limit = [&count](double quota, double period) {
    if (quota <= 0 || period <= 0) return;
    const int64_t cpus = std::max<int64_t>(1, static_cast<int64_t>(quota / period + 0.5));
    count = std::min(count.value_or(cpus), cpus);
  };
  for (const std::string& folder : CgroupFolders("cpu")) {
    double quota = 0, period = 0;
    if (std::ifstream file(folder + "/cpu.max"); file >> quota >> period) limit(quota, period);
    limit(static_cast<double>(ReadNumber(folder + "/cpu.cfs_quota_us").value_or(0)),
          static_cast<double>(ReadNumber(folder + "/cpu.cfs_period_us").value_or(0)));
  }
  return count;
}

struct MemoryLimit {
  int64_t limit_bytes = std::numeric_limits<int64_t>::max();
  int64_t left_bytes = std::numeric_limits<int64_t>::max();
};

// Of what a cgroup is charged for, pages of files that are given back when memory is needed.
int64_t CgroupFileCacheBytes(const std::string& folder) {
  std::ifstream file(folder + "/memory.stat");
  int64_t cache = 0;
  std::string key;
  int64_t bytes = 0;
  while (file >> key >> bytes)
    if (key == "inactive_file" || key == "active_file") cache += bytes;
  return cache;
}

MemoryLimit CgroupMemory() {
  MemoryLimit memory;
  for (const std::string& folder : CgroupFolders("memory")) {
    for (auto [limit_file, used_file] : {std::pair{"/memory.max", "/memory.current"},
                                         {"/memory.limit_in_bytes", "/memory.usage_in_bytes"}}) {
      const auto limit = ReadNumber(folder + limit_file);
      if (!limit) continue;
      memory.limit_bytes = std::min(memory.limit_bytes, *limit);
      const int64_t used =
          ReadNumber(folder + used_file).value_or(0) - CgroupFileCacheBytes(folder);
      memory.left_bytes = std::min(memory.left_bytes, std::max<int64_t>(0, *limit - used));
    }
  }
  return memory;
}

int64_t PhysicalBytes() {
  return int64_t{sysconf(_SC_PHYS_PAGES)} * int64_t{sysconf(_SC_PAGESIZE)};
}

}  // namespace

int UsableCpuCount() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int64_t count = 1;
  if (sched_getaffinity(0, sizeof set, &set) == 0) count = std::max(1, CPU_COUNT(&set));
  if (const auto quota = CgroupCpuCount()) count = std::min(count, *quota);
  return static_cast<int>(count);
}

int64_t UsableMemoryBytes() { return std::min(PhysicalBytes(), CgroupMemory().limit_bytes); }

int64_t AvailableMemoryBytes() {
  int64_t available = PhysicalBytes();
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string key;
    int64_t kib = 0;
    if (fields >> key >> kib && key == "MemAvailable:") available = kib * 1024;
  }
  return std::min(available, CgroupMemory().left_bytes);
}

int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total_pages = 0, resident_pages = 0;
  file >> total_pages >> resident_pages;
  return resident_pages * int64_t{sysconf(_SC_PAGESIZE)};
}

}  // namespace millpower
