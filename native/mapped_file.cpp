#include "mapped_file.hpp"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <mutex>
#include <vector>

#include "crc32c.hpp"

namespace unspool {

namespace {

// Readable bytes after the end of the data, so that a 32-byte load of a short list is always safe.
constexpr u64 kSlack = 64;

// The maps that the signal handler may repair. Slots are never moved; reading them is lock-free.
struct Slot {
  std::atomic<u8*> begin{nullptr};
  std::atomic<u64> length{0};
  std::atomic<std::atomic<bool>*> poisoned{nullptr};
};
constexpr int kChunk = 256;
constexpr int kChunks = 1024;
std::atomic<Slot*> g_slots[kChunks];
std::mutex g_mutex;
std::vector<int> g_free;
int g_used = 0;
struct sigaction g_previous;

void on_bus_error(int signal, siginfo_t* info, void* context) {
  u8* address = static_cast<u8*>(info->si_addr);
  for (int c = 0; c < kChunks; ++c) {
    Slot* chunk = g_slots[c].load(std::memory_order_acquire);
    if (!chunk) break;
    for (int s = 0; s < kChunk; ++s) {
      u8* begin = chunk[s].begin.load(std::memory_order_acquire);
      if (!begin || address < begin || address >= begin + chunk[s].length.load()) continue;
      const std::uintptr_t page_size = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
      u8* page = reinterpret_cast<u8*>(reinterpret_cast<std::uintptr_t>(address) & ~(page_size - 1));
      if (mmap(page, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
          MAP_FAILED)
        break;
      if (auto* flag = chunk[s].poisoned.load(std::memory_order_acquire))
        flag->store(true, std::memory_order_release);
      return;
    }
  }
  // Not ours: whoever handled it before does, and by default the process ends.
  if (g_previous.sa_flags & SA_SIGINFO) {
    if (g_previous.sa_sigaction) return g_previous.sa_sigaction(signal, info, context);
  } else if (g_previous.sa_handler == SIG_IGN) {
    return;
  } else if (g_previous.sa_handler != SIG_DFL) {
    return g_previous.sa_handler(signal);
  }
  ::signal(SIGBUS, SIG_DFL);
  raise(SIGBUS);
}

int take_slot(u8* begin, u64 length, std::atomic<bool>* poisoned) {
  std::lock_guard lock(g_mutex);
  // faulthandler and others may install theirs later; each new map makes sure that ours is first.
  struct sigaction current {};
  sigaction(SIGBUS, nullptr, &current);
  if (!(current.sa_flags & SA_SIGINFO) || current.sa_sigaction != on_bus_error) {
    struct sigaction mine {};
    mine.sa_sigaction = on_bus_error;
    mine.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigemptyset(&mine.sa_mask);
    sigaction(SIGBUS, &mine, &g_previous);
  }
  int id;
  if (!g_free.empty()) {
    id = g_free.back();
    g_free.pop_back();
  } else {
    if (g_used == kChunk * kChunks) return -1;
    id = g_used++;
    if (!g_slots[id / kChunk].load()) g_slots[id / kChunk].store(new Slot[kChunk]);
  }
  Slot& slot = g_slots[id / kChunk].load()[id % kChunk];
  slot.length = length;
  slot.poisoned = poisoned;
  slot.begin.store(begin, std::memory_order_release);
  return id;
}

void give_slot(int id) {
  if (id < 0) return;
  std::lock_guard lock(g_mutex);
  Slot& slot = g_slots[id / kChunk].load()[id % kChunk];
  slot.begin = nullptr;
  slot.poisoned = nullptr;
  g_free.push_back(id);
}

[[noreturn]] void fail(const std::string& path, const char* doing) {
  const int error = errno;
  throw SystemError(error, std::string(doing) + " " + path + ": " + std::strerror(error));
}

}  // namespace

MappedFile::MappedFile(const std::string& path, bool ram) : path_(path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(path, "opening");
  struct stat info {};
  if (fstat(fd, &info) != 0) {
    ::close(fd);
    fail(path, "reading");
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd);
    throw Corrupt(path + " is not a regular file.");
  }
  size_ = static_cast<u64>(info.st_size);
  const u64 page_size = static_cast<u64>(sysconf(_SC_PAGESIZE));
  // Address space for the file and one page more: the slack lies in anonymous memory when the file
  // ends on a page boundary, else in the zero-filled rest of its last page or the page after it.
  mapped_ = round_up(size_, page_size) + page_size;
  void* area = mmap(nullptr, mapped_, PROT_READ | (ram ? PROT_WRITE : 0),
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) {
    ::close(fd);
    fail(path, "mapping");
  }
  base_ = static_cast<u8*>(area);
  static_assert(kSlack <= 4096);
  if (ram) {
#ifdef MADV_HUGEPAGE
    madvise(base_, mapped_, MADV_HUGEPAGE);  // a rank is a few reads far apart: spare the page walks
#endif
    for (u64 done = 0; done < size_;) {
      const ssize_t got = ::pread(fd, base_ + done, size_ - done, static_cast<off_t>(done));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        ::close(fd);
        munmap(base_, mapped_);
        if (got == 0) throw Corrupt(path + " became shorter while it was read.");
        fail(path, "reading");
      }
      done += static_cast<u64>(got);
    }
  } else if (size_ != 0) {
    if (mmap(base_, size_, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
      ::close(fd);
      munmap(base_, mapped_);
      fail(path, "mapping");
    }
    slot_ = take_slot(base_, round_up(size_, page_size), &poisoned_);
  }
  ::close(fd);
  // calloc: where nothing is to be checked the bits take no memory.
  void* words = std::calloc(size_ / kUnit / 64 + 1, sizeof(std::atomic<u64>));
  if (!words) throw std::bad_alloc();
  pending_.reset(static_cast<std::atomic<u64>*>(words));
}

MappedFile::~MappedFile() {
  give_slot(slot_);
  if (base_) munmap(base_, mapped_);
}

void MappedFile::set_checksums(u64 table, u64 second) {
  table_ = table;
  second_ = second;
  for (u64 word = 0; word <= size_ / kUnit / 64; ++word)
    pending_[word].store(~u64{0}, std::memory_order_relaxed);
}

bool MappedFile::is_sound(u64 unit) const {
  const u64 at = unit * kUnit;
  if (at < kPage) return true;  // the header has a checksum of its own
  const u64 entry = at < table_ ? table_ + 4 * unit : second_ + 4 * (unit - table_ / kUnit);
  return crc32c(base_ + at, kUnit) == load<u32>(base_ + entry);
}

void MappedFile::fetch_unit(u64 unit) const {
  const u64 at = unit * kUnit;
  if (at >= table_) return;
  prefetch(base_ + table_ + 4 * unit);
  for (u64 line = 0; line < kUnit; line += 64) prefetch(base_ + at + line);
}

void MappedFile::check_units(u64 first, u64 last) const {
  for (u64 unit = first; unit <= last; ++unit) {
    if (!pending(unit)) continue;
    if (unit < table_ / kUnit) {
      const u64 above = (table_ + 4 * unit) / kUnit;
      if (pending(above)) check_units(above, above);
    }
    if (unit < second_ / kUnit && !is_sound(unit)) {
      throw_if_poisoned();
      throw Corrupt(path_ + ": bytes " + std::to_string(unit * kUnit) + " to " +
                    std::to_string((unit + 1) * kUnit) +
                    " do not match their checksum. The file is damaged: restore it from a copy, or "
                    "delete it and run the same build again.");
    }
    pending_[unit / 64].fetch_and(~(u64{1} << (unit % 64)), std::memory_order_relaxed);
  }
}

void MappedFile::out_of_bounds(u64 offset, u64 length) const {
  throw_if_poisoned();
  throw Corrupt(path_ + ": a reference points to bytes " + std::to_string(offset) + " + " +
                std::to_string(length) + ", outside the file of " + std::to_string(size_) +
                " bytes. The file is damaged.");
}

void MappedFile::throw_poisoned() const {
  throw Corrupt(path_ + " became shorter while it was open. Restore the file and open it again.");
}

void MappedFile::advise_random() const {
  if (size_) madvise(base_, size_, MADV_RANDOM);
}

void MappedFile::warm(Poll& poll) const { read_through(0, size_, poll); }

void MappedFile::read_through(u64 begin, u64 end, Poll& poll) const {
  if (begin == end) return;
  const u64 first = begin / kPage * kPage;
  madvise(base_ + first, end - first, MADV_WILLNEED);
  for (u64 offset = first; offset < end; offset += kPage) {
    at(offset, std::min(kPage, end - offset));
    poll(1);
  }
}

void MappedFile::expect(u64 begin, u64 end, u64 reads, Poll& poll) const {
  // Units in a row that are checked in the time of one by itself: no page fault or cache miss each.
  constexpr u64 kInARow = 4;
  if (!table_ || all_read_.load(std::memory_order_relaxed) || reads * kInARow < (end - begin) / kUnit)
    return;
  read_through(begin, end, poll);
  all_read_.store(true, std::memory_order_relaxed);
}

}  // namespace unspool
