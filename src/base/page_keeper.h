// Bounds how much of privately mapped files is resident at once, while others read them.
//
// What is resident is taken back in address order, round and round, once it comes near the bound:
// first in, first out, however often a page has been read. A page that is wanted again is found in
// the system's page cache at the price of a minor fault, unless the system needed its memory for
// something else meanwhile; so pages in use stay in memory. That is the segmented FIFO of Turner
// and Levy ("Segmented FIFO page replacement", SIGMETRICS 1981), which comes near to LRU; the
// system's cache is the second segment. docs/decisions/tensors.md has more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"

namespace millpower {

// Thread-safe.
class PageKeeper {
  struct Shared;

 public:
  // Memory that is kept, until this is destroyed; it owns what it was told owns the memory.
  class Pages {
   public:
    ~Pages();
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;

    // `bytes` are about to be written. When this has returned, their pages, which are then no
    // longer the file's, are never taken back. Bytes that are not kept are none of its business.
    void BeforeWrite(std::span<const std::byte> bytes);

    // The `row_bytes` from each of `rows` on are about to be read. Reads from disk what is not in
    // memory, all of it at once, and makes room before it is mapped, so that readers that call this
    // keep the bound themselves. Rows that are not kept are none of its business.
    void BeforeRead(std::span<const std::byte* const> rows, int64_t row_bytes);

   private:
    friend class PageKeeper;
    struct Range;
    Pages(std::shared_ptr<Shared> shared, std::shared_ptr<const void> owner,
          const std::vector<std::span<const std::byte>>& parts);
    Range* RangeOf(const std::byte* byte);
    const std::shared_ptr<Shared> shared_;
    const std::shared_ptr<const void> owner_;
    std::vector<Range> ranges_;  // by address
  };

  struct Stats {
    int64_t bound_bytes = 0;
    int64_t mapped_bytes = 0;    // kept, whether resident or not
    int64_t resident_bytes = 0;  // of those; at least what it is, by a little
    int64_t written_bytes = 0;   // of those; they are in no file and stay
    // So far, as often as they were given back. At least: what readers map meanwhile hides some.
    int64_t given_back_bytes = 0;
  };

  // Begins to take pages back when `headroom_bytes` of `bound_bytes` are left. Those who call
  // BeforeRead do so themselves; of what others read, a thread takes back until twice as many are
  // left. It looks as often as it takes for them not to map as much in between (see
  // kMappedBytesPerNs), which holds as long as it gets a processor. Pages that were written stay,
  // beyond the bound if they must. Errors: kUnsupported where /proc does
  // not tell what is resident; kInvalidArgument (a bound that is not above twice the headroom).
  static Result<std::unique_ptr<PageKeeper>> Start(int64_t bound_bytes, int64_t headroom_bytes);
  ~PageKeeper();
  PageKeeper(const PageKeeper&) = delete;
  PageKeeper& operator=(const PageKeeper&) = delete;

  // Keeps the whole pages of `parts`, which lie in files mapped privately (MappedFile::
  // OpenCopyOnWrite) that `owner` owns and nobody has written to. Tells the system that they are
  // read at random. May outlive the keeper, and is not bounded then.
  std::shared_ptr<Pages> Keep(std::shared_ptr<const void> owner,
                              const std::vector<std::span<const std::byte>>& parts);

  Stats stats() const;

 private:
  explicit PageKeeper(std::shared_ptr<Shared> shared);
  const std::shared_ptr<Shared> shared_;
  struct Thread;
  const std::unique_ptr<Thread> thread_;
};

}  // namespace millpower
