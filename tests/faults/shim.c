/* A disk that fails when it is told to: LD_PRELOAD of a whole command, its ranks included.
 *
 * FAULT_TRIGGER: nothing fails before this file exists. FAULT_PATH: calls on paths that contain this text fail.
 * FAULT_CALLS: which calls, of "open,write,fsync". FAULT_ERRNO: with this errno.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int fails(const char *call, const char *path)
{
    const char *trigger = getenv("FAULT_TRIGGER"), *part = getenv("FAULT_PATH");
    const char *calls = getenv("FAULT_CALLS"), *number = getenv("FAULT_ERRNO");
    int before = errno;
    if (!trigger || !part || !calls || !number || !strstr(calls, call) || !strstr(path, part) || access(trigger, F_OK)) {
        errno = before;
        return 0;
    }
    errno = atoi(number);
    return 1;
}

static int fails_at(const char *call, int descriptor)
{
    char link[64], path[4096];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0)
        return 0;
    path[length] = 0;
    return fails(call, path);
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define OPEN(name)                                  \
    int name(const char *path, int flags, ...)      \
    {                                               \
        REAL(name);                                 \
        va_list rest;                               \
        va_start(rest, flags);                      \
        mode_t mode = va_arg(rest, mode_t);         \
        va_end(rest);                               \
        if (fails("open", path))                    \
            return -1;                              \
        return real(path, flags, mode);             \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                            \
    int name(int folder, const char *path, int flags, ...)      \
    {                                                           \
        REAL(name);                                             \
        va_list rest;                                           \
        va_start(rest, flags);                                  \
        mode_t mode = va_arg(rest, mode_t);                     \
        va_end(rest);                                           \
        if (fails("open", path))                                \
            return -1;                                          \
        return real(folder, path, flags, mode);                 \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int descriptor, const void *data, size_t size)
{
    REAL(write);
    return fails_at("write", descriptor) ? -1 : real(descriptor, data, size);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    REAL(writev);
    return fails_at("write", descriptor) ? -1 : real(descriptor, parts, count);
}

int fsync(int descriptor)
{
    REAL(fsync);
    return fails_at("fsync", descriptor) ? -1 : real(descriptor);
}

int fdatasync(int descriptor)
{
    REAL(fdatasync);
    return fails_at("fsync", descriptor) ? -1 : real(descriptor);
}
