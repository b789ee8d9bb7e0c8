/* Runs a fuzz target over files instead of random bytes: each argument is a folder of seeds and past findings. Every
 * file is also given cut short at 64 places and with some of its bits turned, so that sanitizer builds learn
 * something from an ordinary test run. Speaks TAP. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *read_file(const char *path, size_t *size) {
  FILE *f = fopen(path, "rb");
  struct stat st;
  uint8_t *data = f && !fstat(fileno(f), &st) ? malloc((size_t)st.st_size + 1) : NULL;
  if (data) *size = fread(data, 1, (size_t)st.st_size, f);
  if (f) fclose(f);
  return data;
}

/* An exact copy on the heap, so that reading past its end is seen. */
static void give(const uint8_t *data, size_t size) {
  uint8_t *copy = malloc(size ? size : 1);
  if (!copy) return;
  memcpy(copy, data, size);
  LLVMFuzzerTestOneInput(copy, size);
  free(copy);
}

static void give_variants(uint8_t *data, size_t size) {
  const char *wanted = getenv("REPLAY_FLIPS"); /* sweep.sh asks for more */
  int flips = wanted ? atoi(wanted) : 200;
  uint64_t seed = 88172645463325252;
  give(data, size);
  for (int i = 0; i < 64; i++) give(data, size * (size_t)i / 64);
  for (int i = 0; i < flips && size; i++) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    uint8_t *at = &data[seed % size], kept = *at;
    *at ^= (uint8_t)(1u << (seed >> 60 & 7));
    give(data, size);
    *at = kept;
  }
}

int main(int argc, char **argv) {
  int count = 0, failed = 0;
  for (int i = 1; i < argc; i++) {
    DIR *folder = opendir(argv[i]);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
      if (entry->d_name[0] == '.') continue;
      char path[4096];
      snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
      size_t size = 0;
      uint8_t *data = read_file(path, &size);
      if (data) give_variants(data, size);
      else failed = 1;
      printf("%s %d - %s\n", data ? "ok" : "not ok", ++count, entry->d_name);
      free(data);
    }
    if (folder) closedir(folder);
  }
  if (!count) printf("not ok %d - no seeds found\n", ++count), failed = 1;
  printf("1..%d\n", count);
  return failed;
}
