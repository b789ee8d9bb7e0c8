/* See x86_features.h. Linux gives no process the tiles that has not asked for them (arch_prctl, since 5.16): their 8 KiB would have to
 * fit onto every signal stack. It refuses when a thread has set an alternate stack that is too small for that. */
#include "x86_features.h"

#include <cpuid.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OSXSAVE = 1 << 27, FP16 = 1 << 23, AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25, MORE_AMX_FP16 = 1 << 21, MORE_AVX_VNNI = 1 << 4, MORE_BF16 = 1 << 5 };
enum { AVX_STATE = 6, AVX512_STATE = 0xe6, TILE_STATE = 3 << 17 }; /* of XCR0: SSE, AVX, masks and both halves of the vectors; configuration and data */
enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* asm/prctl.h, which older systems lack */

cml_x86_words cml_x86_read(void) {
  cml_x86_words w = {0};
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d)) w.basic_ecx = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    w.extended_edx = d;
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) w.more_eax = a;
  }
  if (w.extended_edx & AMX_TILE && __get_cpuid_count(0x1d, 1, &a, &b, &c, &d)) w.palette[0] = a, w.palette[1] = b, w.palette[2] = c;
  if (w.basic_ecx & OSXSAVE) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    w.xcr0 = (uint64_t)high << 32 | low;
  }
  return w;
}

cml_x86_features cml_x86_features_of(const cml_x86_words *w) {
  cml_x86_features f = {0};
  if (!(w->basic_ecx & OSXSAVE)) return f;
  f.avx_vnni = (w->xcr0 & AVX_STATE) == AVX_STATE && w->more_eax & MORE_AVX_VNNI;
  if ((w->xcr0 & AVX512_STATE) != AVX512_STATE) return f;
  f.fp16 = w->extended_edx & FP16;
  uint32_t tile_bytes = w->palette[0] >> 16, row_bytes = w->palette[1] & 0xffff, tiles = w->palette[1] >> 16, rows = w->palette[2] & 0xffff;
  bool shape = tile_bytes >= 1024 && row_bytes >= 64 && tiles >= 8 && rows >= 16;
  f.amx_bf16 = shape && (w->xcr0 & TILE_STATE) == TILE_STATE && w->extended_edx & AMX_TILE && w->extended_edx & AMX_BF16 && w->more_eax & MORE_BF16;
  f.amx_fp16 = f.amx_bf16 && w->more_eax & MORE_AMX_FP16;
  f.amx_int8 = f.amx_bf16 && w->extended_edx & AMX_INT8;
  return f;
}

static bool permitted;

static void ask(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
  permitted = !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
#endif
}

bool cml_x86_permit_tiles(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, ask);
  return permitted;
}
