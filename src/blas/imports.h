// The import table of a loaded library: the slots through which it calls other libraries.
//
// A call of cblas_sgemm in libmxnet goes through a slot that the dynamic linker fills in.  Writing
// an address there redirects the calls of this one library and nobody else's.  The other way, a
// library with these names that is loaded with RTLD_GLOBAL first, would also catch the calls of
// whatever is loaded later: a NumPy that links libcblas, or a PyTorch that links MKL.
#ifndef D2L_BLAS_IMPORTS_H_
#define D2L_BLAS_IMPORTS_H_

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdint.h>

namespace d2l {

class Imports {
 public:
  // library: what dlopen returned.
  explicit Imports(void* library) {
    if (dlinfo(library, RTLD_DI_LINKMAP, &map_) != 0) return;
    for (const ElfW(Dyn)* entry = map_->l_ld; entry->d_tag != DT_NULL; ++entry) {
      switch (entry->d_tag) {
        case DT_SYMTAB: symbols_ = at<ElfW(Sym)>(entry); break;
        case DT_STRTAB: names_ = at<char>(entry); break;
        case DT_JMPREL: tables_[0].begin = at<ElfW(Rela)>(entry); break;
        case DT_PLTRELSZ: tables_[0].bytes = entry->d_un.d_val; break;
        case DT_RELA: tables_[1].begin = at<ElfW(Rela)>(entry); break;
        case DT_RELASZ: tables_[1].bytes = entry->d_un.d_val; break;
        default: break;
      }
    }
    dl_iterate_phdr(&find_read_only, this);
  }

  // Calls visit(name, slot) for every slot that holds the address of a function or variable.
  template <class Visit>
  void for_each(const Visit& visit) const {
    if (!symbols_ || !names_) return;
    for (const Table& table : tables_) {
      for (uint64_t i = 0; table.begin && i < table.bytes / sizeof(ElfW(Rela)); ++i) {
        const ElfW(Rela) & entry = table.begin[i];
        const auto type = ELF64_R_TYPE(entry.r_info);
        const bool holds_address = type == R_X86_64_JUMP_SLOT || type == R_X86_64_GLOB_DAT ||
                                   (type == R_X86_64_64 && entry.r_addend == 0);
        if (!holds_address) continue;
        const ElfW(Sym) & symbol = symbols_[ELF64_R_SYM(entry.r_info)];
        visit(names_ + symbol.st_name, reinterpret_cast<void**>(map_->l_addr + entry.r_offset));
      }
    }
  }

  // Whether the linker has made the slot read-only (RELRO), as it does with -z now.
  bool read_only(void** slot) const {
    const uintptr_t address = reinterpret_cast<uintptr_t>(slot);
    return address >= read_only_begin_ && address < read_only_end_;
  }

 private:
  struct Table {
    const ElfW(Rela) * begin;
    uint64_t bytes;
  };

  // glibc has turned the offsets of this section into addresses; other linkers leave offsets.
  template <class T>
  const T* at(const ElfW(Dyn) * entry) const {
    const uintptr_t value = entry->d_un.d_ptr;
    return reinterpret_cast<const T*>(value < map_->l_addr ? map_->l_addr + value : value);
  }

  static int find_read_only(dl_phdr_info* info, size_t, void* data) {
    Imports* self = static_cast<Imports*>(data);
    if (info->dlpi_addr != self->map_->l_addr) return 0;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const ElfW(Phdr) & header = info->dlpi_phdr[i];
      if (header.p_type != PT_GNU_RELRO) continue;
      self->read_only_begin_ = info->dlpi_addr + header.p_vaddr;
      self->read_only_end_ = self->read_only_begin_ + header.p_memsz;
    }
    return 1;
  }

  link_map* map_ = nullptr;
  const ElfW(Sym) * symbols_ = nullptr;
  const char* names_ = nullptr;
  Table tables_[2] = {};
  uintptr_t read_only_begin_ = 0, read_only_end_ = 0;
};

}  // namespace d2l

#endif  // D2L_BLAS_IMPORTS_H_
