/* A stand-in for librga.so. It is no Rockchip software: it scales with the processor, in the
 * arithmetic that OpenCV's bilinear has (11 bits a factor), and watches how it is used. No figure
 * taken with it says anything about a board.
 *
 * Environment: RGA_STANDIN_HARDWARE names the generations it plays ("RGA_2_Enhance RGA_3" unless
 * told otherwise); RGA_STANDIN_FAIL=improcess:2:-4 makes the second such call fail with -4 (0: all
 * of them; for an import the code is what it answers); RGA_STANDIN_DELAY_US=n makes each picture
 * take so much longer; RGA_STANDIN_WRONG=colours or place makes a wrong picture. */
#define _GNU_SOURCE
#include "interface.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_HANDLES = 64 };

typedef struct {
    uint8_t *at;
    size_t mapped;
    int width, height, format;
} Known;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Known known[MAX_HANDLES];
static int64_t handles, misuse, pictures, calls_of_import;
static char last_misuse[200];

/* handles left, misuse, pictures made, imports */
void rga_standin_state(int64_t *told) {
    pthread_mutex_lock(&lock);
    int64_t now[] = {handles, misuse, pictures, calls_of_import};
    memcpy(told, now, sizeof now);
    pthread_mutex_unlock(&lock);
}

const char *rga_standin_misuse(void) { return last_misuse; }

void rga_standin_forgive(void) { misuse = 0; }

static int blame(const char *what) {
    misuse++;
    snprintf(last_misuse, sizeof last_misuse, "%s", what);
    return STATUS_INVALID;
}

static const char *hardware(void) {
    const char *told = getenv("RGA_STANDIN_HARDWARE");
    return told ? told : "RGA_2_Enhance RGA_3";
}

/* Whether this call is to fail, and with what. */
static int planned(const char *function, int64_t nth, int *code) {
    const char *text = getenv("RGA_STANDIN_FAIL");
    char name[32];
    int wanted;
    return text && sscanf(text, "%31[a-z_]:%d:%d", name, &wanted, code) == 3 &&
           !strcmp(name, function) && (wanted == 0 || wanted == nth);
}

const char *querystring(int name) {
    static char told[200];
    static int greeted;
    /* The real one greets on stdout too. */
    if (!greeted++) puts("rga_api version 1.10.3_[0] (rkzoo stand-in)");
    snprintf(told, sizeof told, "RGA_api version       : v1.10.3_[0]\nRGA version           : %s\n",
             hardware());
    return name == NAME_VERSION ? told : "";
}

const char *imStrError_t(int status) {
    return status == STATUS_ILLEGAL ? "Illegal parameters: stand-in" : "Fatal error: stand-in";
}

/* ---- memory --------------------------------------------------------------------------- */

static size_t bytes(int width, int height, int format) {
    return (size_t)width * height * (format == FORMAT_NV12 ? 3 : 6) / 2;
}

static uint32_t taken(uint8_t *at, size_t mapped, im_handle_param_t *how) {
    for (uint32_t i = 0; i < MAX_HANDLES; i++)
        if (!known[i].at) {
            known[i] = (Known){at, mapped, how->width, how->height, how->format};
            handles++;
            return i + 1;
        }
    blame("more than 64 pictures are known at once: somebody forgets to release");
    return 0;
}

uint32_t importbuffer_virtualaddr(void *address, im_handle_param_t *how) {
    int code;
    pthread_mutex_lock(&lock);
    int fails = planned("importbuffer_virtualaddr", ++calls_of_import, &code);
    uint32_t handle = fails ? (uint32_t)code : taken(address, 0, how);
    pthread_mutex_unlock(&lock);
    return handle;
}

uint32_t importbuffer_fd(int fd, im_handle_param_t *how) {
    struct stat told;
    size_t size = bytes(how->width, how->height, how->format);
    int code;
    uint32_t handle = 0;
    pthread_mutex_lock(&lock);
    if (planned("importbuffer_fd", ++calls_of_import, &code))
        handle = code;
    else if (fstat(fd, &told) || (size_t)told.st_size < size)
        blame("the file descriptor holds less than the picture");
    else {
        void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at != MAP_FAILED) handle = taken(at, size, how);
    }
    pthread_mutex_unlock(&lock);
    return handle;
}

int releasebuffer_handle(uint32_t handle) {
    int answer = STATUS_SUCCESS;
    pthread_mutex_lock(&lock);
    if (!handle || handle > MAX_HANDLES || !known[handle - 1].at)
        answer = blame("a picture is released that is not known");
    else {
        Known *one = &known[handle - 1];
        if (one->mapped) munmap(one->at, one->mapped);
        one->at = NULL;
        handles--;
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

rga_buffer_t wrapbuffer_handle_t(uint32_t handle, int width, int height, int wstride, int hstride,
                                 int format) {
    rga_buffer_t told = {.width = width, .height = height, .wstride = wstride, .hstride = hstride,
                         .format = format, .global_alpha = 0xff, .rd_mode = 1, .handle = handle};
    return told;
}

/* ---- rules ---------------------------------------------------------------------------- */

static int scales(int from, int to, int most) { return from <= to * most && to <= from * most; }

static int fits(im_rect from, im_rect to, int least, int most) {
    return from.width >= least && to.width >= least && from.height >= 2 && to.height >= 2 &&
           scales(from.width, to.width, most) && scales(from.height, to.height, most);
}

static const char *broken(const rga_buffer_t *from, const rga_buffer_t *to, im_rect source,
                          im_rect place, int usage) {
    const rga_buffer_t *both[] = {from, to};
    int three = strstr(hardware(), "RGA_3") != NULL, two = strstr(hardware(), "RGA_2") != NULL;
    for (int i = 0; i < 2; i++) {
        const rga_buffer_t *one = both[i];
        if (!one->handle || one->handle > MAX_HANDLES || !known[one->handle - 1].at)
            return "a picture is used that is not known";
        const Known *memory = &known[one->handle - 1];
        if (memory->width != one->wstride || memory->height != one->hstride ||
            memory->format != one->format)
            return "a picture is not as it was imported";
        if (one->wstride % (three ? 16 : 4)) return "a row has the wrong length";
        if (one->width > one->wstride || one->height > one->hstride)
            return "a picture is larger than its memory";
        if (one->rd_mode != 1 || one->global_alpha != 0xff) return "a picture is no plain one";
    }
    if (from->format == FORMAT_NV12) {
        if ((source.x | source.y | source.width | source.height | from->hstride) % 2)
            return "NV12 has an odd side or place";
        if (to->color_space_mode != BT601_LIMITED) return "the colours of NV12 are not told";
    }
    if (to->format == FORMAT_NV12) return "this stand-in writes no NV12";
    if (source.x < 0 || source.y < 0 || source.x + source.width > from->width ||
        source.y + source.height > from->height || place.x < 0 || place.y < 0 ||
        place.x + place.width > to->width || place.y + place.height > to->height)
        return "a place lies outside its picture";
    if (!(three && fits(source, place, 68, 8)) && !(two && fits(source, place, 2, 16)))
        return "a side or the scale is beyond the hardware";
    return usage == USAGE_SYNC ? NULL : "it does not wait for the picture";
}

/* ---- pictures ------------------------------------------------------------------------- */

static uint8_t clamped(int value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

/* NV12 to BGR: BT.601 in video's range, 20 bits a factor. */
static void coloured(const uint8_t *from, int stride, int rows, int width, int height,
                     uint8_t *to) {
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const uint8_t *pair = from + (size_t)stride * (rows + y / 2) + (x & ~1);
            int light = from[(size_t)stride * y + x] - 16, half = 1 << 19;
            int u = pair[0] - 128, v = pair[1] - 128;
            light = (light < 0 ? 0 : light) * 1220542;
            *to++ = clamped((light + 2116026 * u + half) >> 20);
            *to++ = clamped((light - 852492 * v - 409993 * u + half) >> 20);
            *to++ = clamped((light + 1673527 * v + half) >> 20);
        }
}

typedef struct {
    int low, high, a, b;
} Tap;

static Tap *taps(int from, int to) {
    Tap *made = malloc(sizeof *made * to);
    double scale = 1 / ((double)to / from);
    for (int i = 0; i < to; i++) {
        float at = (float)((i + 0.5) * scale - 0.5);
        int low = (int)at - (at < (int)at);
        at -= low;
        if (low < 0) low = 0, at = 0;
        if (low >= from - 1) low = from - 1, at = 0;
        made[i] = (Tap){low, low + 1 < from ? low + 1 : low, lrintf((1 - at) * 2048),
                        lrintf(at * 2048)};
    }
    return made;
}

static void scaled(const uint8_t *from, int row, int width, int height, uint8_t *to, int to_row,
                   im_rect place, int turned) {
    Tap *across = taps(width, place.width), *down = taps(height, place.height);
    for (int y = 0; y < place.height; y++) {
        const uint8_t *upper = from + (size_t)row * down[y].low;
        const uint8_t *lower = from + (size_t)row * down[y].high;
        uint8_t *out = to + (size_t)to_row * (place.y + y) + place.x * 3;
        for (int x = 0; x < place.width; x++, out += 3)
            for (int channel = 0; channel < 3; channel++) {
                int low = across[x].low * 3 + channel, high = across[x].high * 3 + channel;
                int a = across[x].a, b = across[x].b;
                int one = (upper[low] * a + upper[high] * b) >> 4;
                int two = (lower[low] * a + lower[high] * b) >> 4;
                one = (one * down[y].a >> 16) + (two * down[y].b >> 16);
                out[turned ? 2 - channel : channel] = (one + 2) >> 2;
            }
    }
    free(across);
    free(down);
}

int improcess(rga_buffer_t from, rga_buffer_t to, rga_buffer_t pattern, im_rect source,
              im_rect place, im_rect pattern_place, int usage) {
    (void)pattern;
    (void)pattern_place;
    int code;
    pthread_mutex_lock(&lock);
    int fails = planned("improcess", ++pictures, &code);
    const char *wrong = fails ? NULL : broken(&from, &to, source, place, usage);
    if (wrong) code = blame(wrong);
    Known in = {0}, out = {0};
    if (!fails && !wrong) in = known[from.handle - 1], out = known[to.handle - 1];
    pthread_mutex_unlock(&lock);
    if (fails || wrong) return code;

    const char *delay = getenv("RGA_STANDIN_DELAY_US"), *lie = getenv("RGA_STANDIN_WRONG");
    if (delay) usleep(atoi(delay));
    uint8_t *made = NULL;
    if (from.format == FORMAT_NV12) {
        made = malloc((size_t)from.width * from.height * 3);
        coloured(in.at, in.width, in.height, from.width, from.height, made);
    }
    if (lie && !strcmp(lie, "place") && place.width > 1) place.x++, place.width--;
    int turned = to.format == FORMAT_RGB;
    if (lie && !strcmp(lie, "colours")) turned = !turned;
    scaled(made ? made : in.at, (made ? from.width : in.width) * 3, from.width, from.height, out.at,
           out.width * 3, place, turned);
    free(made);
    return STATUS_SUCCESS;
}
