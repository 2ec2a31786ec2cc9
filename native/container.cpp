#include "container.hpp"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "crc32c.hpp"

namespace unspool {

namespace {

constexpr u64 kTableAt = 512;  // the section table in the header page
constexpr u64 kEntry = 24;
constexpr u64 kMaxSections = (kPage - 4 - kTableAt) / kEntry;
constexpr u32 kEndianTag = 0x01020304;
constexpr u64 kBuffer = 1 << 20;

// Where the checksums of the checksums lie.
u64 second_table(u64 table) { return table + round_up(4 * (table / kUnit), kUnit); }

struct Head {
  u8 magic[8];
  u32 version, endian;
  u64 file_size, table_offset, second_offset;
  u32 table_crc, num_sections;
  Params params;
};
static_assert(sizeof(Head) <= kTableAt);

// Appends the checksum of each unit.
void sum_units(const std::vector<u8>& data, std::vector<u32>& out) {
  for (u64 at = 0; at < data.size(); at += kUnit) out.push_back(crc32c(data.data() + at, kUnit));
}

[[noreturn]] void fail(const std::string& doing) {
  const int error = errno;
  throw SystemError(error, doing + ": " + std::strerror(error));
}

}  // namespace

Container::Container(const std::string& path, bool ram) {
  file_ = std::make_unique<MappedFile>(path, ram);
  const MappedFile& f = *file_;
  if (f.size() < sizeof(Head) || std::memcmp(f.raw(0, 8), kMagic, 8) != 0)
    throw Corrupt(path + " is not an unspool index file.");
  Head head = load<Head>(f.raw(0, sizeof(Head)));
  // The version comes before the checksum: later formats may place that elsewhere.
  if (head.version != kVersion)
    throw WrongVersion(path + " has format version " + std::to_string(head.version) +
                       ", this program reads version " + std::to_string(kVersion) +
                       ". Upgrade unspool, or build the index again.");
  if (f.size() < 2 * kPage || crc32c(f.raw(0, kPage - 4), kPage - 4) != load<u32>(f.raw(kPage - 4, 4)))
    throw Corrupt(path + ": the header does not match its checksum. The file is damaged.");
  if (head.endian != kEndianTag) throw Corrupt(path + ": wrong byte order.");
  if (head.file_size != f.size())
    throw Corrupt(path + " has " + std::to_string(f.size()) + " bytes, its header says " +
                  std::to_string(head.file_size) + ". The file was cut short or added to.");
  table_offset_ = head.table_offset;
  second_offset_ = head.second_offset;
  if (table_offset_ % kPage || table_offset_ > f.size() || second_offset_ > f.size() ||
      second_offset_ != second_table(table_offset_) ||
      f.size() - second_offset_ != 4 * ((second_offset_ - table_offset_) / kUnit) ||
      head.num_sections > kMaxSections)
    throw Corrupt(path + ": the header contradicts itself. The file is damaged.");
  if (second_crc() != head.table_crc) {
    f.throw_if_poisoned();
    throw Corrupt(path + ": the checksum table is damaged.");
  }
  params_ = head.params;
  for (u64 s = 0; s < head.num_sections; ++s) {
    const u8* p = f.raw(kTableAt + s * kEntry, kEntry);
    char name[9] = {};
    std::memcpy(name, p, 8);
    const Section section{load<u64>(p + 8), load<u64>(p + 16)};
    if (section.offset < kPage || section.offset > table_offset_ ||
        section.length > table_offset_ - section.offset)
      throw Corrupt(path + ": section " + name + " lies outside the file.");
    sections_[name] = section;
  }
  f.throw_if_poisoned();
  file_->set_checksums(table_offset_, second_offset_);
  if (ram)
    for (u64 unit = 0; unit < second_offset_ / kUnit; ++unit) f.at(unit * kUnit, 1);
}

u32 Container::second_crc() const {
  const u64 length = file_->size() - second_offset_;
  return crc32c(file_->raw(second_offset_, length), length);
}

Section Container::need(const std::string& name, u64 length) const {
  const auto found = sections_.find(name);
  if (found == sections_.end()) throw Corrupt(file_->path() + " has no section " + name + ".");
  if (length != ~u64{0} && found->second.length != length)
    throw Corrupt(file_->path() + ": section " + name + " has " +
                  std::to_string(found->second.length) + " bytes instead of " +
                  std::to_string(length) + ".");
  return found->second;
}

std::vector<std::string> Container::verify() const {
  std::vector<std::string> errors;
  const u8* head = file_->raw(0, kPage);
  if (crc32c(head, kPage - 4) != load<u32>(head + kPage - 4))
    errors.push_back(file_->path() + ": the header does not match its checksum");
  if (second_crc() != load<u32>(head + offsetof(Head, table_crc)))
    errors.push_back(file_->path() + ": the checksum table is damaged");
  u64 bad = 0, first = 0;
  for (u64 unit = 0; unit < second_offset_ / kUnit; ++unit)
    if (!file_->is_sound(unit) && bad++ == 0) first = unit;
  if (bad)
    errors.push_back(file_->path() + ": " + std::to_string(bad) + " pieces of " +
                     std::to_string(kUnit) + " bytes do not match their checksum, the first at byte " +
                     std::to_string(first * kUnit));
  file_->throw_if_poisoned();
  return errors;
}

ContainerWriter::ContainerWriter(const std::string& path)
    : path_(path), temporary_(path + ".partial"), offset_(kPage), buffer_offset_(kPage) {
  fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail("creating " + temporary_);
  crcs_.resize(kPage / kUnit);  // page 0 is the header, which carries its own
  buffer_.reserve(kBuffer + kPage);
}

ContainerWriter::~ContainerWriter() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void ContainerWriter::raw_write(const void* data, u64 size, u64 at) {
  const u8* p = static_cast<const u8*>(data);
  while (size) {
    const ssize_t done = ::pwrite(fd_, p, size, static_cast<off_t>(at));
    if (done < 0) {
      if (errno == EINTR) continue;
      fail("writing " + temporary_);
    }
    p += done;
    at += static_cast<u64>(done);
    size -= static_cast<u64>(done);
  }
}

void ContainerWriter::put(const u8* data, u64 size) {
  offset_ += size;
  while (size) {
    const u64 take = std::min(size, kBuffer - buffer_.size());
    buffer_.insert(buffer_.end(), data, data + take);
    data += take;
    size -= take;
    if (buffer_.size() < kBuffer) continue;
    sum_units(buffer_, crcs_);
    raw_write(buffer_.data(), kBuffer, buffer_offset_);
    buffer_offset_ += kBuffer;
    buffer_.clear();
  }
}

void ContainerWriter::begin(const std::string& name) {
  static const u8 zeros[64] = {};
  put(zeros, round_up(offset_, 64) - offset_);
  name_ = name;
  open_ = {offset_, 0};
}
void ContainerWriter::write(const void* data, u64 size) { put(static_cast<const u8*>(data), size); }
void ContainerWriter::end() {
  open_.length = offset_ - open_.offset;
  sections_.emplace_back(name_, open_);
}

u64 ContainerWriter::finish(const Params& params) {
  if (sections_.size() > kMaxSections) throw std::logic_error("too many sections");
  buffer_.resize(round_up(buffer_.size(), kPage));
  sum_units(buffer_, crcs_);
  raw_write(buffer_.data(), buffer_.size(), buffer_offset_);
  const u64 table_offset = buffer_offset_ + buffer_.size(), second = second_table(table_offset);
  std::vector<u8> table(second - table_offset);
  std::memcpy(table.data(), crcs_.data(), crcs_.size() * 4);
  raw_write(table.data(), table.size(), table_offset);
  std::vector<u32> sums;
  sum_units(table, sums);
  raw_write(sums.data(), sums.size() * 4, second);

  std::vector<u8> page(kPage);
  Head head{};
  std::memcpy(head.magic, kMagic, 8);
  head.version = kVersion;
  head.endian = kEndianTag;
  head.file_size = second + sums.size() * 4;
  head.table_offset = table_offset;
  head.second_offset = second;
  head.table_crc = crc32c(sums.data(), sums.size() * 4);
  head.num_sections = static_cast<u32>(sections_.size());
  head.params = params;
  std::memcpy(page.data(), &head, sizeof(head));
  for (u64 s = 0; s < sections_.size(); ++s) {
    u8* p = page.data() + kTableAt + s * kEntry;
    std::memcpy(p, sections_[s].first.data(), std::min<std::size_t>(8, sections_[s].first.size()));
    store(p + 8, sections_[s].second.offset);
    store(p + 16, sections_[s].second.length);
  }
  store(page.data() + kPage - 4, crc32c(page.data(), kPage - 4));
  raw_write(page.data(), kPage, 0);
  if (::fsync(fd_) != 0) fail("writing " + temporary_);
  if (::close(fd_) != 0) {
    fd_ = -1;
    fail("writing " + temporary_);
  }
  fd_ = -1;
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("renaming " + temporary_);
  return head.file_size;
}

}  // namespace unspool
