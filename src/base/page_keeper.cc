#include "base/page_keeper.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>

#include "base/descriptor.h"
#include "base/system.h"

namespace millpower {
namespace {

using std::chrono::nanoseconds;
using std::chrono::steady_clock;

// Bytes of pages that one processor maps in a nanosecond at most, all of them being in the page
// cache: a fault maps its neighbours too, 16 pages and more. Measured: 250 B/ns, 0.26 us a fault.
constexpr int64_t kMappedBytesPerNs = 256;
constexpr nanoseconds kLookMin = std::chrono::microseconds(200);
constexpr nanoseconds kLookMax = std::chrono::milliseconds(50);
// How long it may take until a change of what else of files is resident is noticed, at most.
constexpr nanoseconds kRecountEvery = std::chrono::seconds(10);
constexpr nanoseconds kRecountAgain = std::chrono::seconds(1);

// Pages that are taken back, or counted, at a time: BeforeWrite waits for no more.
constexpr size_t kChunkPages = 2048;

// Rows whose pages are asked from disk at a time, and pages that a reader maps between two looks at
// the bound. From Linux 6.18 on one fault maps all of the page cache's folio that the page is in,
// 2 MiB at most, so that these are 32 MiB a reader at most.
constexpr size_t kRowsAtOnce = 256, kPagesPerLook = 16;

// Documentation/admin-guide/mm/pagemap.rst of the Linux kernel.
constexpr uint64_t kPresent = uint64_t{1} << 63, kOfFile = uint64_t{1} << 61;

size_t PageBytes() {
  static const auto bytes = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

}  // namespace

// Neighbouring pages.
struct PageKeeper::Pages::Range {
  std::byte* begin = nullptr;
  size_t count = 0;
  std::vector<bool> written = {};  // by page; guarded by Shared's mutex
  // A bit a page, set by readers and cleared when it is taken back: whether it is mapped, as far as
  // readers know.
  std::vector<std::atomic<uint64_t>> mapped = {};

  std::byte* at(size_t page) const { return begin + page * PageBytes(); }

  // Whether the page was not known to be mapped; it is from now on.
  bool Map(size_t page) {
    std::atomic<uint64_t>& word = mapped[page / 64];
    const uint64_t bit = uint64_t{1} << page % 64;
    if ((word.load(std::memory_order_relaxed) & bit) != 0) return false;
    return (word.fetch_or(bit, std::memory_order_relaxed) & bit) == 0;
  }
  // Pages [begin, end) are not known to be mapped any more; nor are neighbours in their words.
  void Forget(size_t from, size_t end) {
    for (size_t word = from / 64; word < (end + 63) / 64; ++word)
      mapped[word].store(0, std::memory_order_relaxed);
  }

  // Pages wholly inside of `bytes`.
  static Range Inside(std::span<const std::byte> bytes) {
    const size_t page = PageBytes();
    const auto address = reinterpret_cast<uintptr_t>(bytes.data());
    const uintptr_t first = (address + page - 1) / page * page;
    const uintptr_t end = (address + bytes.size()) / page * page;
    const size_t count = first < end ? (end - first) / page : 0;
    return {.begin = reinterpret_cast<std::byte*>(first),
            .count = count,
            .written = std::vector<bool>(count),
            .mapped = std::vector<std::atomic<uint64_t>>((count + 63) / 64)};
  }
};

struct PageKeeper::Shared {
  int64_t bound_bytes = 0, headroom_bytes = 0;
  Descriptor statm, pagemap;

  std::mutex mutex;  // of what follows: nobody unmaps or begins to write while pages are taken back
  std::vector<Pages::Range*> ranges;
  uint64_t generation = 0;  // of `ranges`
  size_t hand_range = 0, hand_page = 0;
  // The count under way: what it has come to, and the first page that it has not seen.
  struct Count {
    int64_t pages = 0;
    size_t range = 0, page = 0;
  };
  std::optional<Count> count;

  std::atomic<bool> recount{false};  // `other_pages` may have changed
  std::atomic<bool> in_vain{false};  // a whole round was not enough: it certainly has
  std::atomic<int64_t> kept_pages{0}, written_pages{0};
  std::atomic<int64_t> other_pages{0};  // of files, resident, that are not kept
  std::atomic<int64_t> given_back_pages{0};

  // Resident pages of files, of the whole process.
  int64_t FilePages() const {
    std::array<char, 128> text;
    const ssize_t size = ::pread(statm.get(), text.data(), text.size(), 0);
    const std::string_view line(text.data(), static_cast<size_t>(std::max<ssize_t>(size, 0)));
    const size_t second = line.find(' '), third = line.find(' ', second + 1);
    int64_t pages = 0;
    if (third != std::string_view::npos)
      std::from_chars(line.data() + third + 1, line.data() + line.size(), pages);
    return pages;
  }

  // Kept pages that are resident and the file's.
  int64_t CleanPages() const { return std::max<int64_t>(0, FilePages() - other_pages); }

  // How many of these there may be, before pages are taken back. Written ones leave less.
  int64_t MostClean() const {
    const int64_t headroom = Headroom();
    const int64_t most = bound_bytes / static_cast<int64_t>(PageBytes()) - headroom - written_pages;
    return std::max(most, headroom);
  }
  int64_t Headroom() const { return headroom_bytes / static_cast<int64_t>(PageBytes()); }

  // Takes back what was not written of the next chunk, and goes on by it. Returns its pages, 0 when
  // nothing is kept.
  size_t TakeBackChunk() {
    const std::lock_guard lock(mutex);
    if (ranges.empty()) return 0;
    if (hand_range >= ranges.size()) hand_range = hand_page = 0;
    Pages::Range& range = *ranges[hand_range];
    const size_t end = std::min(hand_page + kChunkPages, range.count);
    // What the count under way would have seen.
    if (count && std::pair(hand_range, hand_page) >= std::pair(count->range, count->page))
      count->pages += PresentPages(range, hand_page, end).value_or(0);
    for (size_t page = hand_page; page < end;) {
      const auto is_written = range.written[page];
      size_t next = page + 1;
      while (next < end && range.written[next] == is_written) ++next;
      if (!is_written) ::madvise(range.at(page), (next - page) * PageBytes(), MADV_DONTNEED);
      page = next;
    }
    // Not before: a reader who came in between would know pages to be mapped that are not, and map
    // them later without looking at the bound. This way it is no more than this chunk's.
    range.Forget(hand_page, end);
    const size_t done = end - hand_page;
    hand_page = end;
    if (end == range.count) {
      ++hand_range;
      hand_page = 0;
    }
    return done;
  }

  // Takes pages back until no more than `wanted` are left, once round at most: whether it was
  // enough.
  bool TakeBack(int64_t wanted) {
    int64_t left = kept_pages;
    for (int64_t clean = CleanPages(); clean > wanted;) {
      const auto chunk = static_cast<int64_t>(TakeBackChunk());
      const int64_t now = CleanPages();
      given_back_pages += std::max<int64_t>(0, clean - now);
      clean = now;
      left -= chunk;
      if (chunk > 0 && left > 0) continue;
      recount = true;  // it may be others that are there
      return false;
    }
    return true;
  }

  // What readers do before they map more. When it was in vain, it is left to the thread until what
  // else is there has been counted.
  void MakeRoom() {
    if (!in_vain && !TakeBack(MostClean())) in_vain = true;
  }

  // Pages of [begin, end) that are resident and the file's.
  std::optional<int64_t> PresentPages(const Pages::Range& range, size_t begin, size_t end) const {
    std::array<uint64_t, kChunkPages> entries;
    const size_t size = (end - begin) * sizeof(uint64_t);
    const auto at = reinterpret_cast<uintptr_t>(range.at(begin)) / PageBytes();
    if (::pread(pagemap.get(), entries.data(), size, static_cast<off_t>(at * sizeof(uint64_t))) !=
        static_cast<ssize_t>(size))
      return std::nullopt;
    return std::count_if(
        entries.begin(), entries.begin() + static_cast<ptrdiff_t>(end - begin),
        [](uint64_t entry) { return (entry & kPresent) != 0 && (entry & kOfFile) != 0; });
  }

  // Finds out anew how much is resident that is not kept. Pages that are mapped or taken back
  // meanwhile count as kept, so that what is kept is never thought less than it is. Gives up when
  // what is kept changes.
  void Recount(int64_t most_clean) {
    std::unique_lock lock(mutex);
    recount = false;
    const uint64_t began = generation;
    const int64_t all = FilePages();
    count = Count{};
    while (count->range < ranges.size()) {
      const Pages::Range& range = *ranges[count->range];
      const size_t end = std::min(count->page + kChunkPages, range.count);
      const auto present = PresentPages(range, count->page, end);
      if (!present) break;
      count->pages += *present;
      count->page = end == range.count ? 0 : end;
      if (end == range.count) ++count->range;
      lock.unlock();
      if (CleanPages() > most_clean) TakeBackChunk();
      lock.lock();
      if (generation != began) break;
    }
    if (generation == began && count->range == ranges.size()) {
      other_pages = std::max<int64_t>(0, all - count->pages);
      in_vain = false;
    }
    count.reset();
  }
};

struct PageKeeper::Thread {
  std::shared_ptr<Shared> shared;
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::jthread thread;

  explicit Thread(std::shared_ptr<Shared> of) : shared(std::move(of)) {
    thread = std::jthread([this](const std::stop_token& stop) { Loop(stop); });
  }

  void Loop(const std::stop_token& stop) {
    const int64_t bytes_per_ns = kMappedBytesPerNs * UsableCpuCount();
    steady_clock::time_point counted = steady_clock::now();
    int64_t counted_pages = 0;
    while (!stop.stop_requested()) {
      const int64_t most = shared->MostClean();
      int64_t clean = shared->CleanPages();
      if (clean > most) {
        shared->TakeBack(std::max(most - shared->Headroom(), most / 2));
        clean = shared->CleanPages();
      }
      const auto age = steady_clock::now() - counted;
      const bool due = (age > kRecountAgain && shared->recount) ||
                       (age > kRecountEvery && shared->FilePages() != counted_pages);
      if (due) {
        counted_pages = shared->FilePages();
        shared->Recount(most);
        counted = steady_clock::now();
        continue;
      }
      // The room that is left lasts so long at least.
      const int64_t room = std::max<int64_t>(0, most + shared->Headroom() - clean) *
                           static_cast<int64_t>(PageBytes());
      const auto look = std::clamp(nanoseconds(room / bytes_per_ns), kLookMin, kLookMax);
      std::unique_lock lock(mutex);
      stopped.wait_for(lock, stop, look, [] { return false; });
    }
  }
};

PageKeeper::Pages::Pages(std::shared_ptr<Shared> shared, std::shared_ptr<const void> owner,
                         const std::vector<std::span<const std::byte>>& parts)
    : shared_(std::move(shared)), owner_(std::move(owner)) {
  for (const auto part : parts) {
    Range range = Range::Inside(part);
    if (range.count == 0) continue;
    // Otherwise a fault reads 128 KiB around a row of a hundred bytes.
    ::madvise(range.begin, range.count * PageBytes(), MADV_RANDOM);
    ranges_.push_back(std::move(range));
  }
  std::ranges::sort(ranges_, {}, &Range::begin);
  const std::lock_guard lock(shared_->mutex);
  for (Range& range : ranges_) {
    shared_->kept_pages += static_cast<int64_t>(range.count);
    shared_->ranges.push_back(&range);
  }
  ++shared_->generation;
  shared_->recount = true;
}

PageKeeper::Pages::~Pages() {
  const std::lock_guard lock(shared_->mutex);
  for (const Range& range : ranges_) {
    shared_->kept_pages -= static_cast<int64_t>(range.count);
    shared_->written_pages -= std::ranges::count(range.written, true);
    std::erase(shared_->ranges, &range);
  }
  ++shared_->generation;
  shared_->recount = true;
  shared_->hand_range = shared_->hand_page = 0;
}

// The first range that does not end before `byte`; null after the last.
PageKeeper::Pages::Range* PageKeeper::Pages::RangeOf(const std::byte* byte) {
  const auto found = std::ranges::partition_point(
      ranges_, [byte](const Range& range) { return range.at(range.count) <= byte; });
  return found == ranges_.end() ? nullptr : &*found;
}

void PageKeeper::Pages::BeforeWrite(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const std::byte* const last = bytes.data() + bytes.size() - 1;
  const std::lock_guard lock(shared_->mutex);
  for (Range& range : ranges_) {
    if (last < range.begin || bytes.data() >= range.at(range.count)) continue;
    const size_t first_page = bytes.data() <= range.begin
                                  ? 0
                                  : static_cast<size_t>(bytes.data() - range.begin) / PageBytes();
    const size_t last_page =
        std::min(static_cast<size_t>(last - range.begin) / PageBytes(), range.count - 1);
    for (size_t page = first_page; page <= last_page; ++page) {
      if (range.written[page]) continue;
      range.written[page] = true;
      ++shared_->written_pages;
    }
  }
}

void PageKeeper::Pages::BeforeRead(std::span<const std::byte* const> rows, int64_t row_bytes) {
  Range* range = nullptr;
  for (size_t done = 0; done < rows.size(); done += kRowsAtOnce) {
    std::array<const std::byte*, 2 * kRowsAtOnce> pages;
    size_t count = 0;
    for (const std::byte* row : rows.subspan(done, std::min(kRowsAtOnce, rows.size() - done))) {
      if (range == nullptr || row < range->begin || row >= range->at(range->count))
        range = RangeOf(row);
      if (range == nullptr || row < range->begin) continue;
      const auto offset = static_cast<size_t>(row - range->begin);
      const size_t last =
          std::min((offset + static_cast<size_t>(row_bytes) - 1) / PageBytes(), range->count - 1);
      for (size_t page = offset / PageBytes(); page <= last && count < pages.size(); ++page)
        if (range->Map(page)) pages[count++] = range->at(page);
    }
    for (size_t i = 0; i < count; ++i)
      ::madvise(const_cast<std::byte*>(pages[i]), PageBytes(), MADV_WILLNEED);
    for (size_t i = 0; i < count; ++i) {
      if (i % kPagesPerLook == 0) shared_->MakeRoom();
      (void)*static_cast<const volatile std::byte*>(pages[i]);
    }
  }
}

Result<std::unique_ptr<PageKeeper>> PageKeeper::Start(int64_t bound_bytes, int64_t headroom_bytes) {
  if (headroom_bytes <= 0 || bound_bytes / 2 <= headroom_bytes)
    return Fail(ErrorCode::kInvalidArgument,
                "a bound of " + std::to_string(bound_bytes) +
                    " bytes of resident pages is too small: it takes more than " +
                    std::to_string(2 * headroom_bytes));
  const auto shared = std::make_shared<Shared>();
  shared->bound_bytes = bound_bytes;
  shared->headroom_bytes = headroom_bytes;
  shared->statm = Descriptor(::open("/proc/self/statm", O_RDONLY | O_CLOEXEC));
  shared->pagemap = Descriptor(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  if (shared->statm.get() < 0 || shared->pagemap.get() < 0 || shared->FilePages() == 0)
    return Fail(ErrorCode::kUnsupported,
                "resident pages cannot be bounded: /proc/self/statm or pagemap cannot be read");
  shared->other_pages = shared->FilePages();
  return std::unique_ptr<PageKeeper>(new PageKeeper(shared));
}

PageKeeper::PageKeeper(std::shared_ptr<Shared> shared)
    : shared_(std::move(shared)), thread_(std::make_unique<Thread>(shared_)) {}

PageKeeper::~PageKeeper() = default;

std::shared_ptr<PageKeeper::Pages> PageKeeper::Keep(
    std::shared_ptr<const void> owner, const std::vector<std::span<const std::byte>>& parts) {
  return std::shared_ptr<Pages>(new Pages(shared_, std::move(owner), parts));
}

PageKeeper::Stats PageKeeper::stats() const {
  const auto page = static_cast<int64_t>(PageBytes());
  const int64_t clean = shared_->CleanPages();
  const int64_t written = shared_->written_pages, kept = shared_->kept_pages;
  const int64_t resident = std::min(clean + written, kept);
  return {.bound_bytes = shared_->bound_bytes,
          .mapped_bytes = kept * page,
          .resident_bytes = resident * page,
          .written_bytes = written * page,
          .given_back_bytes = shared_->given_back_pages * page};
}

}  // namespace millpower
