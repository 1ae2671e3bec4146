// What this machine, or the container we are in, allows us to use.
#pragma once

#include <cstdint>

namespace millpower {

// Processors we may run on: the affinity mask, capped by a cgroup v1/v2 CPU quota; at least 1.
int UsableCpuCount();

// Bytes of memory we may use: physical memory, capped by a cgroup v1/v2 memory limit.
int64_t UsableMemoryBytes();

// Bytes that could be allocated now without swapping (MemAvailable), capped by what the cgroup's
// limit leaves.
int64_t AvailableMemoryBytes();

// Resident set size of this process.
int64_t ResidentBytes();

}  // namespace millpower
