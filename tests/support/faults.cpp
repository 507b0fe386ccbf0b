// A library for LD_PRELOAD that makes one call of the C library fail, or kills the process there.
//
// It counts the calls that change files below one folder: open for writing, write, fsync and
// rename. Native code is counted as well as Python, because both call the C library.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <mutex>

namespace {

std::recursive_mutex lock;
char folder[PATH_MAX];  // empty: nothing is counted
char site[PATH_MAX];    // only these calls are counted: kind and path, digits as #; empty: all
long calls, fails_at;   // the call with this number fails; 0: none
int error_number;       // 0: the process is killed instead
bool lasting;           // every later call fails too
int trace = -1;         // a file that gets a line per call

template <class F>
F real(const char* name) {
  return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

// Writes the call's kind and path, with # for every row of digits.
void name(const char* kind, const char* path, char* text, size_t size) {
  size_t n = static_cast<size_t>(snprintf(text, size, "%s ", kind));
  for (; *path != 0 && n + 1 < size; ++path) {
    const bool digit = *path >= '0' && *path <= '9';
    if (!digit) text[n++] = *path;
    if (digit && text[n - 1] != '#') text[n++] = '#';
  }
  text[n] = 0;
}

// Returns whether this call must fail, with errno set.
bool fails(const char* kind, const char* path) {
  const std::lock_guard<std::recursive_mutex> guard(lock);
  if (folder[0] == 0 || strncmp(path, folder, strlen(folder)) != 0) return false;
  char found[2 * PATH_MAX];
  name(kind, path + strlen(folder), found, sizeof found);
  if (trace >= 0) dprintf(trace, "%s\n", found);
  const bool counts = site[0] == 0 || strcmp(site, found) == 0;
  if (counts) ++calls;
  if (fails_at == 0 || calls < fails_at) return false;
  if (!lasting && (!counts || calls > fails_at)) return false;
  if (error_number == 0) kill(getpid(), SIGKILL);
  errno = error_number;
  return true;
}

bool fails(const char* kind, int fd) {
  if (folder[0] == 0 || fd == trace) return false;
  char link[64], path[PATH_MAX] = {};
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  return readlink(link, path, sizeof path - 1) > 0 && fails(kind, path);
}

bool fails_open(const char* path, int flags) {
  return (flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0 && fails("open", path);
}

}  // namespace

extern "C" {

void faults_arm(const char* where, const char* which, long at, int number, int stays,
                int trace_file) {
  snprintf(folder, sizeof folder, "%s", where);
  snprintf(site, sizeof site, "%s", which);
  calls = 0, fails_at = at, error_number = number, lasting = stays != 0, trace = trace_file;
}
long faults_calls() { return calls; }

#define OPEN(name)                                 \
  int name(const char* path, int flags, ...) {     \
    va_list arguments;                             \
    va_start(arguments, flags);                    \
    const mode_t mode = va_arg(arguments, mode_t); \
    va_end(arguments);                             \
    if (fails_open(path, flags)) return -1;        \
    using F = int (*)(const char*, int, ...);      \
    static const F next = real<F>(#name);          \
    return next(path, flags, mode);                \
  }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void* data, size_t size) {
  static const auto next = real<ssize_t (*)(int, const void*, size_t)>("write");
  return fails("write", fd) ? -1 : next(fd, data, size);
}
ssize_t writev(int fd, const iovec* parts, int count) {
  static const auto next = real<ssize_t (*)(int, const iovec*, int)>("writev");
  return fails("write", fd) ? -1 : next(fd, parts, count);
}
int fsync(int fd) {
  static const auto next = real<int (*)(int)>("fsync");
  return fails("fsync", fd) ? -1 : next(fd);
}
int rename(const char* from, const char* to) {
  static const auto next = real<int (*)(const char*, const char*)>("rename");
  return fails("rename", to) ? -1 : next(from, to);
}

}  // extern "C"
