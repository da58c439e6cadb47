/* A fake rknpu driver: what Rockchip's library asks of the kernel, answered in this process.
 *
 * Preloaded (LD_PRELOAD) in front of the C library. It plays the misc device /dev/rknpu (memory
 * is a file descriptor of its own) or the DRM node /dev/dri/card0 (memory is mapped from the
 * node), with memfd as memory. It computes nothing. On submit it can play back: write what was
 * computed elsewhere to the places that the register commands name, when the bytes that stand
 * where they read their input are those that belong to it.
 *
 * Numbers and layouts are those of the public kernel header drivers/rknpu/include/rknpu_ioctl.h.
 *
 * Environment:
 *   NPU_NODE=misc|drm|none     the node that exists (default misc)
 *   NPU_HARDWARE=0x46495245    the hardware version (default RK3588)
 *   NPU_DRIVER=908             the driver's version (0.9.8)
 *   NPU_LOG=FILE               one line for each create, destroy, sync and submit
 *   NPU_REFUSE=N               the Nth allocation finds no memory
 *   NPU_FAIL_SUBMIT=1          a submit times out
 *   NPU_DELAY_US=N             how long a submit takes
 *   NPU_FILL=N                 what new memory holds (default 0)
 *   NPU_PLAY=FILE              what to play back (see `struct play`)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ACTION, SUBMIT, CREATE, MAP, DESTROY, SYNC };
enum { MOST = 65536, NODES = 4096, PAGE = 4096, SHIFT = 30 };

struct action { uint32_t flags, value; };
struct create { uint32_t handle, flags; uint64_t size, object, dma, sram; };
struct map { uint32_t handle, reserved; uint64_t offset; };
struct destroy { uint32_t handle, reserved; uint64_t object; };
struct sync { uint32_t flags, reserved; uint64_t object, offset, size; };
struct submit {
    uint32_t flags, timeout, start, number, counter;
    int32_t priority;
    uint64_t tasks;
    uint32_t domain, reserved;
    uint64_t base;
    int64_t elapsed;
    uint32_t cores;
    int32_t fence;
    struct { uint32_t start, number; } core[5];
};
struct task {
    uint32_t flags, index, enable, int_mask, int_clear, int_status, words, offset;
    uint64_t commands;
} __attribute__((packed));

struct object {
    uint64_t size, dma;
    uint32_t flags;
    int fd, live, imported, ours; /* `ours`: its descriptor was never handed out */
    uint8_t *bytes;
    const uint8_t *entry; /* of a list of tasks: what its run plays */
};

static struct object objects[MOST];
static int created = 1, submitted; /* object 0 stands for none */
static char is_node[NODES];
static int64_t opens, creates, destroys, live, live_bytes, submits, syncs, played, unknown;
/* A test's hook may end another context in the middle of a submit. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static FILE *log_file;

static long setting(const char *name, long usual) {
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 0) : usual;
}

static void say(const char *format, ...) {
    static int asked;
    if (!asked) {
        asked = 1;
        const char *path = getenv("NPU_LOG");
        if (path && *path) log_file = fopen(path, "a");
    }
    if (!log_file) return;
    va_list values;
    va_start(values, format);
    vfprintf(log_file, format, values);
    va_end(values);
    fflush(log_file);
}

/* ---- memory ----------------------------------------------------------------------------- */

static uint64_t name_of(int index) { return 0xffff000000000000ull + (uint64_t)index * 64; }

static int index_of(uint64_t name) {
    int64_t index = (int64_t)(name - 0xffff000000000000ull) / 64;
    return index > 0 && index < created && objects[index].live ? (int)index : 0;
}

/* Where the NPU's address `dma` lies in this process, with the bytes from there on. */
static uint8_t *at(uint64_t dma, uint64_t *left) {
    for (int i = created - 1; i > 0; i--) {
        struct object *one = &objects[i];
        if (one->live && dma >= one->dma && dma < one->dma + one->size) {
            *left = one->dma + one->size - dma;
            return one->bytes + (dma - one->dma);
        }
    }
    return NULL;
}

static int make(struct create *asked, int drm) {
    static uint64_t next_dma = 0x10000000;
    long refused = setting("NPU_REFUSE", 0);
    creates++;
    if (refused && creates == refused) {
        say("refuse %llu\n", (unsigned long long)asked->size);
        errno = ENOMEM;
        return -1;
    }
    if (created >= MOST) {
        errno = ENOMEM;
        return -1;
    }
    struct object *one = &objects[created];
    memset(one, 0, sizeof *one);
    one->size = (asked->size + PAGE - 1) / PAGE * PAGE;
    one->imported = asked->handle > 0 && !drm;
    one->fd = one->imported ? (int)asked->handle : memfd_create("npu", MFD_CLOEXEC);
    if (!one->imported && ftruncate(one->fd, one->size)) return -1;
    one->bytes = mmap(NULL, one->size, PROT_READ | PROT_WRITE, MAP_SHARED, one->fd, 0);
    if (one->bytes == MAP_FAILED) return -1;
    if (!one->imported) memset(one->bytes, (int)setting("NPU_FILL", 0), one->size);
    one->ours = drm;
    one->flags = asked->flags;
    one->dma = next_dma;
    one->live = 1;
    next_dma += one->size + PAGE;
    live++, live_bytes += one->size;
    asked->handle = drm ? (uint32_t)created : (uint32_t)one->fd;
    asked->object = name_of(created);
    asked->dma = one->dma;
    asked->sram = 0;
    asked->size = one->size;
    say("create %d %llu %#x%s\n", created, (unsigned long long)one->size, one->flags,
        one->imported ? " imported" : "");
    created++;
    return 0;
}

static int drop(int index) {
    if (!index) {
        errno = EINVAL;
        return -1;
    }
    struct object *one = &objects[index];
    munmap(one->bytes, one->size);
    if (one->ours) syscall(SYS_close, one->fd);
    one->live = 0;
    destroys++, live--, live_bytes -= one->size;
    say("destroy %d\n", index);
    return 0;
}

/* ---- playing back ----------------------------------------------------------------------- */

/* A file: the word RKNPLAY1, how many entries, then entries. An entry: how many tensors are
 * given and written, then for each tensor the place of its address in the register commands
 * (task, word), how many bytes, how far behind the address they stand, and those bytes. The
 * given ones come first: all must stand in memory as they are here for the others to be
 * written, each when the task that writes it is submitted. */
struct place { uint32_t task, word, size, offset; };
static uint8_t *play, *play_end;

void npu_play(const char *path) {
    if (play) munmap(play, play_end - play);
    play = NULL;
    if (!path || !*path) return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
    struct stat info;
    if (fd < 0 || fstat(fd, &info)) return;
    play = mmap(NULL, info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    play_end = play + info.st_size;
    close(fd);
    if (play == MAP_FAILED || memcmp(play, "RKNPLAY1", 8)) play = NULL;
}

static void load_play(void) {
    static int asked;
    if (!asked) {
        asked = 1;
        if (!play) npu_play(getenv("NPU_PLAY"));
    }
}

/* Register commands are 64-bit words: target (16 bits), value (32), register (16). */
/* `size`: how many of its bytes there is room for. */
static uint8_t *place_of(const struct task *tasks, uint64_t count, struct place where,
                         uint64_t base, uint64_t *size) {
    uint64_t left;
    if (where.task >= count) return NULL;
    const struct task *task = &tasks[where.task];
    uint64_t *words = (uint64_t *)at(task->commands + base, &left);
    if (!words || (where.word + 1) * 8ull > left) return NULL;
    uint8_t *found = at(words[where.word] >> 16 & 0xffffffff, &left);
    if (!found || where.offset >= left) return NULL;
    *size = where.size < left - where.offset ? where.size : left - where.offset;
    return found + where.offset;
}

/* Goes through an entry. Without `written`: whether its given tensors stand in memory. With it:
 * writes those whose task is part of `job`. Moves `entry` behind it. */
static int go_through(const uint8_t **entry, const struct object *list, const struct submit *job,
                      int written) {
    const struct task *tasks = (const struct task *)list->bytes;
    uint64_t count = list->size / sizeof *tasks;
    uint32_t counts[2];
    memcpy(counts, *entry, 8);
    const uint8_t *next = *entry + 8;
    int fits = 1;
    for (uint32_t i = 0; i < counts[0] + counts[1]; i++) {
        struct place where;
        memcpy(&where, next, sizeof where);
        next += sizeof where;
        int now = where.task >= job->start && where.task < job->start + job->number;
        int given = i < counts[0];
        if (given ? !written && fits : written && now) {
            uint64_t size;
            uint8_t *there = place_of(tasks, count, where, job->base, &size);
            if (given) fits = there && size == where.size && !memcmp(there, next, size);
            else if (there) memcpy(there, next, size);
        }
        next += where.size;
    }
    *entry = next;
    return fits;
}

/* A run's first submit begins with task 0: there its input is looked at. Later the library uses
 * that memory for other things. */
static void play_back(const struct submit *job, struct object *list) {
    load_play();
    if (!play) return;
    if (!job->start) {
        uint64_t entries;
        memcpy(&entries, play + 8, 8);
        const uint8_t *next = play + 16;
        list->entry = NULL;
        for (uint64_t i = 0; i < entries && next < play_end && !list->entry; i++) {
            const uint8_t *this = next;
            if (go_through(&next, list, job, 0)) list->entry = this;
        }
        if (list->entry) played++;
        else unknown++;
        say(list->entry ? "played\n" : "unknown input\n");
    }
    if (list->entry) {
        const uint8_t *entry = list->entry;
        go_through(&entry, list, job, 1);
    }
}

/* ---- what tests ask --------------------------------------------------------------------- */

void (*npu_hook)(uint32_t start, uint32_t number);

/* opens, creates, destroys, live objects, live bytes, submits, syncs, played, unknown */
void npu_state(int64_t *told) {
    int64_t now[] = {opens, creates, destroys, live, live_bytes, submits, syncs, played, unknown};
    memcpy(told, now, sizeof now);
}

/* The object's bytes in this process, or NULL once it is gone. */
uint8_t *npu_object(int index, uint64_t *size, uint64_t *dma) {
    if (index < 1 || index >= created || !objects[index].live) return NULL;
    *size = objects[index].size, *dma = objects[index].dma;
    return objects[index].bytes;
}

int npu_objects(void) { return created; }

/* The list of tasks that was submitted last. */
uint8_t *npu_tasks(uint64_t *size) {
    *size = objects[submitted].size;
    return objects[submitted].bytes;
}

/* ---- the kernel's side ------------------------------------------------------------------ */

static int act(struct action *asked) {
    switch (asked->flags) {
    case 0: asked->value = (uint32_t)setting("NPU_HARDWARE", 0x46495245); break;
    case 1: asked->value = (uint32_t)setting("NPU_DRIVER", 908); break;
    case 18: asked->value = 1; break; /* with an IOMMU */
    default: asked->value = 0;
    }
    return 0;
}

static int submit(struct submit *job) {
    submits++;
    int list = index_of(job->tasks);
    say("submit %u %u %#x\n", job->start, job->number, job->cores);
    long delay = setting("NPU_DELAY_US", 0);
    if (delay) {
        pthread_mutex_unlock(&lock);
        usleep(delay);
        pthread_mutex_lock(&lock);
    }
    if (setting("NPU_FAIL_SUBMIT", 0) || !list) {
        errno = list ? ETIMEDOUT : EINVAL;
        return -1;
    }
    submitted = list;
    if (npu_hook) npu_hook(job->start, job->number);
    play_back(job, &objects[list]);
    struct task *tasks = (struct task *)objects[list].bytes;
    uint64_t count = objects[list].size / sizeof *tasks;
    for (uint64_t i = job->start; i < job->start + job->number && i < count; i++)
        tasks[i].int_status = tasks[i].int_mask;
    job->counter = job->number;
    return 0;
}

static int sync_memory(const struct sync *asked) {
    int index = index_of(asked->object);
    syncs++;
    say("sync %d %s%s %llu %llu\n", index, asked->flags & 1 ? "to-device" : "",
        asked->flags & 2 ? "from-device" : "", (unsigned long long)asked->offset,
        (unsigned long long)asked->size);
    if (!index || asked->offset + asked->size > objects[index].size) {
        say("sync beyond\n");
        errno = EINVAL;
        return -1;
    }
    return 0;
}

/* DRM's own questions, as far as libdrm asks them. */
static int drm(unsigned number, void *asked) {
    struct { uint32_t handle, flags; int32_t fd; } *prime = asked;
    switch (number) {
    case 0x00: {
        struct { int major, minor, patch; size_t n; char *name; size_t d; char *date; size_t e;
                 char *text; } *told = asked;
        if (told->name && told->n) memcpy(told->name, "rknpu", told->n < 5 ? told->n : 5);
        if (told->date && told->d) memcpy(told->date, "20240828", told->d < 8 ? told->d : 8);
        if (told->text && told->e) memcpy(told->text, "RKNPU", told->e < 5 ? told->e : 5);
        told->major = 0, told->minor = 9, told->patch = 8;
        told->n = 5, told->d = 8, told->e = 5;
        return 0;
    }
    case 0x01: {
        struct { size_t n; char *name; } *told = asked;
        if (told->name && told->n) memcpy(told->name, "fdab0000.npu", told->n < 12 ? told->n : 12);
        told->n = 12;
        return 0;
    }
    case 0x09: return 0; /* GEM_CLOSE: MEM_DESTROY says the same */
    case 0x2d:
        prime->fd = fcntl(objects[prime->handle].fd, F_DUPFD_CLOEXEC, 3);
        return prime->fd < 0 ? -1 : 0;
    case 0x2e: {
        struct stat wanted, info;
        if (fstat(prime->fd, &wanted)) return -1;
        for (int i = 1; i < created; i++)
            if (objects[i].live && !fstat(objects[i].fd, &info) && info.st_ino == wanted.st_ino) {
                prime->handle = (uint32_t)i;
                return 0;
            }
        errno = EINVAL;
        return -1;
    }
    }
    return 0;
}

static int answer(int fd, unsigned type, unsigned number, void *asked) {
    int drm_node = type == 'd';
    (void)fd;
    if (drm_node && number < 0x40) return drm(number, asked);
    if (drm_node) number -= 0x40;
    switch (number) {
    case ACTION: return act(asked);
    case SUBMIT: return submit(asked);
    case CREATE: return make(asked, drm_node);
    case MAP: {
        struct map *one = asked;
        one->offset = (uint64_t)one->handle << SHIFT;
        return 0;
    }
    case DESTROY: return drop(index_of(((struct destroy *)asked)->object));
    case SYNC: return sync_memory(asked);
    }
    errno = ENOTTY;
    return -1;
}

int ioctl(int fd, unsigned long request, ...) {
    va_list values;
    va_start(values, request);
    void *asked = va_arg(values, void *);
    va_end(values);
    unsigned type = request >> 8 & 255;
    if (type == 'b' && request >> 16) { /* DMA_BUF_IOCTL_SYNC on imported memory */
        struct stat info;
        if (!fstat(fd, &info) && S_ISREG(info.st_mode)) return 0;
    }
    if (fd < 0 || fd >= NODES || !is_node[fd] || (type != 'r' && type != 'd'))
        return (int)syscall(SYS_ioctl, fd, request, asked);
    pthread_mutex_lock(&lock);
    int done = answer(fd, type, request & 255, asked);
    pthread_mutex_unlock(&lock);
    return done;
}

/* ---- the C library's side --------------------------------------------------------------- */

static int plays(const char *path) {
    const char *node = getenv("NPU_NODE");
    if (!strcmp(path, "/dev/rknpu")) return !node || !strcmp(node, "misc") ? 1 : -1;
    if (!strcmp(path, "/dev/dri/card0")) return node && !strcmp(node, "drm") ? 1 : -1;
    return !strncmp(path, "/dev/dri/", 9) || !strncmp(path, "/dev/dma_heap", 13) ? -1 : 0;
}

static int do_open(const char *path, int flags, int mode) {
    int ours = plays(path);
    if (ours < 0) {
        errno = ENOENT;
        return -1;
    }
    if (!ours) return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    int fd = memfd_create("rknpu", MFD_CLOEXEC);
    if (fd >= 0 && fd < NODES) is_node[fd] = 1;
    opens++;
    say("open %s\n", path);
    return fd;
}

int open(const char *path, int flags, ...) {
    va_list values;
    va_start(values, flags);
    int mode = va_arg(values, int);
    va_end(values);
    return do_open(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list values;
    va_start(values, flags);
    int mode = va_arg(values, int);
    va_end(values);
    return do_open(path, flags | O_LARGEFILE, mode);
}

int close(int fd) {
    if (fd >= 0 && fd < NODES) is_node[fd] = 0;
    return (int)syscall(SYS_close, fd);
}

static void *do_mmap(void *address, size_t length, int protection, int flags, int fd,
                     uint64_t offset) {
    if (fd >= 0 && fd < NODES && is_node[fd]) {
        fd = objects[offset >> SHIFT].fd;
        offset = 0;
    }
#ifdef SYS_mmap2
    return (void *)syscall(SYS_mmap2, address, length, protection, flags, fd, offset / PAGE);
#else
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
#endif
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return do_mmap(address, length, protection, flags, fd, (uint64_t)offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset) {
    return do_mmap(address, length, protection, flags, fd, (uint64_t)offset);
}
