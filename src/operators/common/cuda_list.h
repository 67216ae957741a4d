// Lists of arrays on a GPU: as many arrays as fit into the arguments of a launch (4 KB) go through
// one launch, cut into the blocks of common/tensor_list.h.  C++14, as cuda.h.
#ifndef D2L_COMMON_CUDA_LIST_H_
#define D2L_COMMON_CUDA_LIST_H_

#include "cuda.h"
#include "tensor_list.h"

namespace d2l {
inline namespace D2L_ISA {

constexpr int kListThreads = 512;

// The arrays begin .. begin + count - 1 of kLists lists, with something about each of them.
template <int kLists, class About>
struct ListPart {
  static constexpr int kArrays = kLists > 2 ? 22 : 64;
  int count;
  int64_t block;               // the number of the first block among those of all parts
  int64_t first[kArrays + 1];  // the first block of each array in this part
  int64_t size[kArrays];
  void* address[kLists][kArrays];
  int32_t dtype[kArrays];  // of the first list
  About about[kArrays];
};

// A block's piece of the work: elements begin .. end - 1 of array i.
struct ListPiece {
  int i;
  int64_t begin, end;
};

template <class Part>
__device__ inline ListPiece piece_of(const Part& part, int64_t block) {
  int i = 0;
  while (part.first[i + 1] <= block) ++i;
  const int64_t begin = (block - part.first[i]) * kListBlock, end = begin + kListBlock;
  return {i, begin, end < part.size[i] ? end : part.size[i]};
}

// Null where the list is absent.
template <class T, class Part>
__device__ inline T* array_of(const Part& part, int list, int i) {
  return static_cast<T*>(part.address[list][i]);
}

// Goes through the lists in parts.  about(i) is what the kernel is told about array i; run(part,
// blocks) launches and returns a status.  Parts without elements are left out.
template <int kLists, class About, class Tell, class Run>
int for_each_part(const Tensor* in, int64_t n, const Tell& about, const Run& run) {
  typedef ListPart<kLists, About> Part;
  int64_t block = 0;
  for (int64_t begin = 0; begin < n; begin += Part::kArrays) {
    Part part;
    part.count = static_cast<int>(n - begin < Part::kArrays ? n - begin : Part::kArrays);
    part.block = block;
    part.first[0] = 0;
    for (int i = 0; i < part.count; ++i) {
      for (int list = 0; list < kLists; ++list) {
        part.address[list][i] = in[list * n + begin + i].data;
      }
      part.dtype[i] = static_cast<int32_t>(in[begin + i].dtype);
      part.size[i] = volume(in[begin + i].shape);
      part.first[i + 1] = part.first[i] + blocks_of(part.size[i]);
      part.about[i] = about(begin + i);
    }
    const int64_t blocks = part.first[part.count];
    block += blocks;
    if (blocks == 0) continue;
    if (int status = run(part, blocks)) return status;
  }
  return 0;
}

template <class Part, class... Params>
int launch_part(void (*kernel)(Part, Params...), const Part& part, int64_t blocks, void* stream,
                typename Identity<Params>::type... args) {
  int grid;
  if (int status = resident_blocks(kernel, kListThreads, blocks, &grid)) return status;
  return launch(kernel, grid, kListThreads, stream, part, args...);
}

// The number of item i of a list of numbers.
inline double number_of(const RealList& list, int64_t i) {
  if (!list.text) return list.first;
  double number;
  read_list(list, i, i + 1, &number);
  return number;
}

}  // namespace D2L_ISA
}  // namespace d2l

#endif  // D2L_COMMON_CUDA_LIST_H_
