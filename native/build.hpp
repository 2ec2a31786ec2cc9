// Builds one shard file from documents that lie end to end in spool files.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base.hpp"

namespace unspool {

struct Piece {
  std::string path;
  u64 offset, length;  // bytes
};

struct BuildRequest {
  std::string out;
  bool fm = true;
  u32 width = 1;             // bytes of a spooled symbol
  std::vector<Piece> pieces; // read one after the other
  std::vector<u64> lengths;  // symbols of each document
  u64 sa_sample = 32, isa_sample = 64;
  std::vector<std::pair<std::string, std::string>> sections;  // opaque
  std::function<void(const char*, double)> progress;
};

struct BuildResult {
  u64 symbols = 0, documents = 0, rows = 0, alphabet = 0, bytes_file = 0;
  std::map<std::string, double> seconds;
};

BuildResult build_shard(const BuildRequest& request);

// Bytes of memory that build_shard holds at its peak, the process itself apart.
u64 shard_memory(bool fm, u32 width, u64 symbols, u64 documents);

}  // namespace unspool
