/* A stand-in for librknnrt.so. It computes nothing: it plays back outputs that were recorded
 * elsewhere (tests/npu_standin/recording.py writes them behind any file), takes as long as the
 * recording says, and watches how it is used. No figure taken with it says anything about an
 * NPU.
 *
 * Where the real libraries (1.5.2 and 2.3.2, run under qemu with models of toolkit 2.5.0) refuse,
 * ignore or spoil something, it does the same: see "as the real ones do" below.
 *
 * Environment: STANDIN_FAIL=run:3:-2,init:0:-13 makes the third run fail with -2 and every init
 * with -13, and with -134 (ABORTS) the process ends; STANDIN_STRICT=1 refuses a picture that was not recorded; STANDIN_JITTER_US=n adds up
 * to n to each run; STANDIN_CHIP=rk3568 is the board's chip; STANDIN_SAYS=stdout has the errors
 * printed there; STANDIN_LOG names a file for the last word (contexts and memories left, misuse),
 * which goes to stderr only when there is something to complain about.
 *
 * Compiled with STANDIN_SMALL it is librknnmrt.so, the library of RV1103 and RV1106 (where
 * STANDIN_NO_NHWC=1 has it describe no outputs in NHWC); with STANDIN_OLD it lacks what 1.5.2
 * lacks. */
#define _GNU_SOURCE
#include "interface.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef STANDIN_VERSION
#define STANDIN_VERSION "2.3.2"
#endif
#ifdef STANDIN_SMALL
#define LIBRARY "librknnmrt"
#else
#define LIBRARY "librknnrt"
#endif
/* Where programs look for the version of the real one. */
__attribute__((used)) static const char mark[] =
    LIBRARY " version: " STANDIN_VERSION " (rkzoo stand-in)";

enum { ABORTS = -134 };
enum { MAX_TENSORS = 64, MAX_CONTEXTS = 256, MAX_CORES = 8, MAX_VARIANTS = 16 };

typedef struct {
    rknn_tensor_attr plain, native;
} Tensor;

typedef struct {
    uint32_t shape;
    uint64_t hash;
    const uint8_t *data;
} Record;

typedef struct {
    int users, cores, variants, n_input, n_output, n_records, has_memory;
    long delay_us, weights;
    char custom[1024], chip[32];
    Tensor in[MAX_VARIANTS][MAX_TENSORS], out[MAX_VARIANTS][MAX_TENSORS];
    Record *records;
    uint8_t *bytes;
    size_t size;
} Model;

typedef struct Mem {
    rknn_tensor_mem told;
    int mapped, synced, written;
    uint64_t owner;
    struct Mem *next;
} Mem;

typedef struct {
    uint64_t id;
    Model *model;
    int variant, chosen, mask, busy, waiting, flags, has_memory, asked_size;
    Mem *in_mem[MAX_TENSORS], *out_mem[MAX_TENSORS];
    rknn_tensor_attr in_how[MAX_TENSORS], out_how[MAX_TENSORS];
    uint8_t *copied[MAX_TENSORS];
    size_t copied_size[MAX_TENSORS];
    uint8_t *flat;
    size_t flat_size;
    const Record *answer;
    rknn_custom_op *custom;
    uint32_t n_custom;
    int64_t last_us, due_ns;
    uint64_t frame;
    int outputs_held;
} Ctx;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t core_lock[MAX_CORES] = {
    PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER,
    PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER,
    PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
static Ctx *contexts[MAX_CONTEXTS];
static Mem *memories;
static uint64_t next_id = 0x1001;
static int64_t live_contexts, live_memories, misuse, runs, memory_bytes, running, most_running;
static char last_misuse[200];

/* ---- watching ------------------------------------------------------------------------- */

static void blame(const char *what) {
    misuse++;
    snprintf(last_misuse, sizeof last_misuse, "%s", what);
}

/* contexts, memories, misuse, runs, bytes of memory, most cores at work at once */
void standin_state(int64_t *told) {
    pthread_mutex_lock(&lock);
    int64_t now[] = {live_contexts, live_memories, misuse, runs, memory_bytes, most_running};
    memcpy(told, now, sizeof now);
    pthread_mutex_unlock(&lock);
}

/* For the test that misuses it on purpose. */
void standin_forgive(void) { misuse = 0; }

const char *standin_misuse(void) { return last_misuse; }

static void say(FILE *to) {
    fprintf(to, "stand-in: %lld contexts left, %lld memories left, misuse %lld%s%s, %lld runs\n",
            (long long)live_contexts, (long long)live_memories, (long long)misuse,
            misuse ? ": " : "", misuse ? last_misuse : "", (long long)runs);
}

__attribute__((destructor)) static void at_exit(void) {
    const char *path = getenv("STANDIN_LOG");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (file) {
        say(file);
        fclose(file);
    }
    if (live_contexts || live_memories || misuse) say(stderr);
}

/* As the real one reports an error: one line, on stderr. */
static void complain(const char *text, ...) {
    const char *where = getenv("STANDIN_SAYS");
    FILE *to = where && !strcmp(where, "stdout") ? stdout : stderr;
    va_list rest;
    va_start(rest, text);
    fputs("E RKNN: [00:00:00.000] ", to);
    vfprintf(to, text, rest);
    fputc('\n', to);
    va_end(rest);
}

/* The code that this call is to fail with, or 0. Under the lock. */
static int planned(const char *function) {
    static char known[512];
    static struct { char name[32]; int nth, code, seen; } plan[16];
    static int count;
    const char *text = getenv("STANDIN_FAIL");
    if (!text) text = "";
    if (strncmp(text, known, sizeof known - 1)) {
        snprintf(known, sizeof known, "%s", text);
        count = 0;
        char copy[512], *save = NULL;
        snprintf(copy, sizeof copy, "%s", text);
        for (char *part = strtok_r(copy, ",", &save); part && count < 16;
             part = strtok_r(NULL, ",", &save)) {
            plan[count].seen = 0;
            if (sscanf(part, "%31[a-z_]:%d:%d", plan[count].name, &plan[count].nth,
                       &plan[count].code) == 3)
                count++;
        }
    }
    for (int i = 0; i < count; i++)
        if (!strcmp(plan[i].name, function)) {
            plan[i].seen++;
            if (!plan[i].nth || plan[i].seen == plan[i].nth) return plan[i].code;
        }
    return 0;
}

static int fails(const char *function) {
    pthread_mutex_lock(&lock);
    int code = planned(function);
    pthread_mutex_unlock(&lock);
    if (code) complain("%s was told to fail with %d", function, code);
    if (code == ABORTS) abort();
    return code;
}

static Ctx *find(rknn_context id) {
    Ctx *found = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_CONTEXTS; i++)
        if (contexts[i] && contexts[i]->id == (uint64_t)id) found = contexts[i];
    if (!found) blame("a context is used that does not exist or was destroyed");
    pthread_mutex_unlock(&lock);
    return found;
}

static Mem *known_memory(rknn_tensor_mem *mem) {
    Mem *found = NULL;
    pthread_mutex_lock(&lock);
    for (Mem *one = memories; one; one = one->next)
        if (&one->told == mem) found = one;
    if (!found) blame("a memory is used that does not exist or was destroyed");
    pthread_mutex_unlock(&lock);
    return found;
}

/* ---- the recording ---------------------------------------------------------------------- */

static int width_of(int type) {
    switch (type) {
    case F32: case I32: case U32: return 4;
    case F16: case I16: case U16: return 2;
    case I64: return 8;
    default: return 1;
    }
}

static uint32_t elements(const rknn_tensor_attr *attr) {
    uint32_t count = 1;
    for (uint32_t i = 0; i < attr->n_dims; i++) count *= attr->dims[i];
    return count;
}

static int read_dims(const char **at, rknn_tensor_attr *attr) {
    int used;
    if (sscanf(*at, "%u%n", &attr->n_dims, &used) != 1 || attr->n_dims > DIMS) return 0;
    *at += used;
    for (uint32_t i = 0; i < attr->n_dims; i++) {
        if (sscanf(*at, "%u%n", &attr->dims[i], &used) != 1) return 0;
        *at += used;
    }
    return 1;
}

static void finish(rknn_tensor_attr *attr, const char *name) {
    snprintf(attr->name, NAME, "%s", name);
    attr->n_elems = elements(attr);
    attr->size = attr->n_elems * width_of(attr->type);
    uint32_t wide = attr->fmt == NHWC && attr->n_dims == 4 ? attr->dims[2] : 0;
    attr->size_with_stride =
        wide && attr->w_stride > wide ? attr->size / wide * attr->w_stride : attr->size;
}

/* Shape, number, type, quantisation, then format and dims as announced and as in memory, name. */
static int read_tensor(Tensor table[MAX_VARIANTS][MAX_TENSORS], const char *at) {
    int shape, index, type, qnt, zp, used;
    unsigned stride;
    float scale;
    if (sscanf(at, "%d %d %d %d %f %d %u%n", &shape, &index, &type, &qnt, &scale, &zp, &stride,
               &used) != 7)
        return 0;
    if (shape < 0 || shape >= MAX_VARIANTS || index < 0 || index >= MAX_TENSORS) return 0;
    at += used;
    rknn_tensor_attr *plain = &table[shape][index].plain, *native = &table[shape][index].native;
    plain->index = index, plain->type = type, plain->qnt_type = qnt;
    plain->scale = scale, plain->zp = zp, plain->w_stride = stride;
    *native = *plain;
    if (sscanf(at, "%d%n", &plain->fmt, &used) != 1) return 0;
    at += used;
    if (!read_dims(&at, plain) || sscanf(at, "%d%n", &native->fmt, &used) != 1) return 0;
    at += used;
    if (!read_dims(&at, native)) return 0;
    finish(plain, at + strspn(at, " "));
    finish(native, at + strspn(at, " "));
#ifdef STANDIN_SMALL
    /* What is flat is read and written in whole blocks. */
    if (plain->n_dims != 4) native->size = native->size_with_stride = (native->size + 63) / 64 * 64;
#endif
    return 1;
}

/* The bytes of a tensor in a recording. */
static size_t recorded(const rknn_tensor_attr *native) {
    return (size_t)native->n_elems * width_of(native->type);
}

static int read_line(Model *model, char *line) {
    if (sscanf(line, "cores %d", &model->cores) == 1) return 1;
    if (sscanf(line, "delay_us %ld", &model->delay_us) == 1) return 1;
    if (sscanf(line, "weights %ld", &model->weights) == 1) return 1;
    if (sscanf(line, "shapes %d", &model->variants) == 1) return 1;
    if (sscanf(line, "inputs %d", &model->n_input) == 1) return 1;
    if (sscanf(line, "outputs %d", &model->n_output) == 1) return 1;
    if (sscanf(line, "records %d", &model->n_records) == 1) return 1;
    if (!strncmp(line, "custom ", 7))
        return snprintf(model->custom, sizeof model->custom, "%s", line + 7) >= 0;
    if (sscanf(line, "chip %31s", model->chip) == 1) return 1;
    if (!strncmp(line, "input ", 6)) return read_tensor(model->in, line + 6);
    if (!strncmp(line, "output ", 7)) return read_tensor(model->out, line + 7);
    return !strcmp(line, "rkzoo-stand-in 1");
}

static size_t native_bytes(const Model *model, uint32_t shape) {
    size_t size = 0;
    for (int i = 0; i < model->n_output; i++) size += recorded(&model->out[shape][i].native);
    return size;
}

static int read_records(Model *model, const uint8_t *at, const uint8_t *end) {
    model->records = calloc(model->n_records ? model->n_records : 1, sizeof(Record));
    for (int i = 0; i < model->n_records; i++) {
        if (end - at < 16) return 0;
        Record *record = &model->records[i];
        memcpy(&record->shape, at, 4);
        memcpy(&record->hash, at + 8, 8);
        if (record->shape >= (uint32_t)model->variants) return 0;
        record->data = at + 16;
        size_t size = native_bytes(model, record->shape);
        if ((size_t)(end - record->data) < size) return 0;
        at = record->data + size;
    }
    return model->n_records > 0;
}

/* The recording is the last thing in the file: its bytes, their number (64 bits), RKZSTAND. */
static int parse(Model *model) {
    if (model->size < 16 || memcmp(model->bytes + model->size - 8, "RKZSTAND", 8)) return 0;
    uint64_t length;
    memcpy(&length, model->bytes + model->size - 16, 8);
    if (length > model->size - 16) return 0;
    uint8_t *at = model->bytes + model->size - 16 - length, *end = at + length;
    model->variants = 1;
    while (at < end) {
        uint8_t *stop = memchr(at, '\n', end - at);
        if (!stop) return 0;
        *stop = 0;
        char *line = (char *)at;
        at = stop + 1;
        if (!strcmp(line, "data")) break;
        if (!read_line(model, line)) return 0;
    }
    if (model->n_input < 1 || model->n_input > MAX_TENSORS || model->n_output < 1 ||
        model->n_output > MAX_TENSORS || model->variants > MAX_VARIANTS ||
        model->cores < 1 || model->cores > MAX_CORES)
        return 0;
    return read_records(model, at, end);
}

static void release(Model *model) {
    free(model->records);
    free(model->bytes);
    free(model);
}

static Model *load(const void *data, uint32_t size) {
    Model *model = calloc(1, sizeof *model);
    model->cores = 1;
    if (size) {
        model->bytes = malloc(size);
        memcpy(model->bytes, data, size);
        model->size = size;
    } else {
        FILE *file = fopen(data, "rb");
        if (file) {
            fseek(file, 0, SEEK_END);
            model->size = ftell(file);
            if (!model->size) raise(SIGBUS); /* it reads the header of a mapped file */
            rewind(file);
            model->bytes = malloc(model->size + 1);
            if (fread(model->bytes, 1, model->size, file) != model->size) model->size = 0;
            fclose(file);
        }
    }
    if (!parse(model)) {
        release(model);
        return NULL;
    }
    return model;
}

/* ---- as the real ones do ----------------------------------------------------------------
 *
 * - 4-D inputs go through rknn_inputs_set as NHWC only: with another order it prints a line, copies
 *   nothing and answers 0.
 * - Output memory is cached by the processor, and nothing brings it in line before the first run:
 *   what was written there before comes down on what the NPU wrote.
 * - After rknn_set_io_mem, NATIVE_OUTPUT_ATTR tells of cells that the NPU does not leave free, in
 *   the model's other contexts too. On a model with several shapes
 *   the process ends if none was chosen before.
 * - A context whose MEM_SIZE was asked for cannot be duplicated (1.5.2 crashes).
 * - PERF_RUN before a run is any number. rknn_wait without ASYNC is an error.
 * - An empty file is read beyond its end, which ends the process.
 * - The small library answers 0 to almost every rknn_set_io_mem, and what it does not understand
 *   does not arrive.
 */

#ifdef STANDIN_SMALL
enum { SMALL = 1, UNUSABLE = FAILED };
#else
enum { SMALL = 0, UNUSABLE = BAD_MODEL };
#endif
enum { ASYNC = 4, LINE = 64, FRESH = 0xA5 };

/* A picture can be fed as such: NHWC of one, three or four channels. */
static int is_picture(const rknn_tensor_attr *attr) {
    uint32_t channels = attr->dims[3];
    return attr->n_dims == 4 && attr->fmt == NHWC && (channels == 1 || channels == 3 || channels == 4);
}

static int one_picture(const Ctx *ctx) {
    return ctx->model->n_input == 1 && is_picture(&ctx->model->in[ctx->variant][0].plain);
}

/* ---- contexts --------------------------------------------------------------------------- */

/* Under the lock. */
static int add(Model *model, int flags, rknn_context *out) {
    for (int i = 0; i < MAX_CONTEXTS; i++)
        if (!contexts[i]) {
            Ctx *ctx = calloc(1, sizeof *ctx);
            ctx->id = next_id++;
            ctx->model = model;
            ctx->flags = flags;
            model->users++;
            contexts[i] = ctx;
            live_contexts++;
            *out = (rknn_context)ctx->id;
            return OK;
        }
    return NO_MEMORY;
}

int rknn_init(rknn_context *out, void *data, uint32_t size, uint32_t flag,
              rknn_init_extend *extend) {
    (void)extend;
    int code = fails("init");
    if (code) return code;
    if (!out || !data) return BAD_PARAM;
    Model *model = load(data, size);
    if (!model) {
        complain("this is no recording");
        return UNUSABLE;
    }
    const char *chip = getenv("STANDIN_CHIP");
    if (chip && *chip && strcmp(chip, model->chip)) {
        complain("the model is for %s, and this is %s", model->chip, chip);
        release(model);
        return UNUSABLE;
    }
    pthread_mutex_lock(&lock);
    code = add(model, flag, out);
    pthread_mutex_unlock(&lock);
    if (code) release(model);
    return code;
}

int rknn_dup_context(rknn_context *in, rknn_context *out) {
    int code = fails("dup_context");
    if (code) return code;
#ifdef STANDIN_SMALL
    (void)in, (void)out;
    complain("rknn_dup_context not supported in mini runtime!");
    return FAILED;
#else
    Ctx *ctx = find(*in);
    if (!ctx) return BAD_CONTEXT;
    pthread_mutex_lock(&lock);
    if (ctx->asked_size) blame("a context is duplicated after its memory size was asked for");
    code = ctx->asked_size ? FAILED : add(ctx->model, ctx->flags, out);
    pthread_mutex_unlock(&lock);
    return code;
#endif
}

int rknn_destroy(rknn_context id) {
    Ctx *ctx = find(id);
    if (!ctx) return BAD_CONTEXT;
    pthread_mutex_lock(&lock);
    if (ctx->busy) blame("a context is destroyed while it runs");
    if (ctx->outputs_held) blame("outputs were not released");
    for (Mem *one = memories; one; one = one->next)
        if (one->owner == ctx->id) {
            blame("a context is destroyed before its memory");
            break;
        }
    for (int i = 0; i < MAX_CONTEXTS; i++)
        if (contexts[i] == ctx) contexts[i] = NULL;
    live_contexts--;
    int last = --ctx->model->users == 0;
    pthread_mutex_unlock(&lock);
    if (last) release(ctx->model);
    for (int i = 0; i < MAX_TENSORS; i++) free(ctx->copied[i]);
    free(ctx->flat);
    free(ctx->custom);
    free(ctx);
    return OK;
}

/* ---- questions -------------------------------------------------------------------------- */

static int answer_attr(Ctx *ctx, int query, rknn_tensor_attr *attr) {
    int now = query >= 14 ? ctx->variant : 0;
    int input = query == 1 || query == 8 || query == 10 || query == 14 || query == 16;
    int native = query == 8 || query == 9 || query == 16 || query == 17;
    int count = input ? ctx->model->n_input : ctx->model->n_output;
    uint32_t index = attr->index;
    if (index >= (uint32_t)count) return BAD_PARAM;
    Tensor *tensor = input ? &ctx->model->in[now][index] : &ctx->model->out[now][index];
    *attr = native ? tensor->native : tensor->plain;
    if (query == 9 && ctx->model->has_memory && attr->fmt == NC1HWC2) {
        attr->dims[3] = (attr->dims[2] * attr->dims[3] / 8 + 1) * 8, attr->dims[2] = 1;
        finish(attr, tensor->native.name);
    }
    const char *none = getenv("STANDIN_NO_NHWC");
    if (query == 11 && none && *none == '1') return FAILED;
    if (query == 11 && attr->fmt == NCHW) {
        uint32_t channels = attr->dims[1];
        attr->dims[1] = attr->dims[2], attr->dims[2] = attr->dims[3], attr->dims[3] = channels;
        attr->fmt = NHWC;
    }
    return OK;
}

static int answer_range(Ctx *ctx, rknn_input_range *range) {
    uint32_t index = range->index;
    if (index >= (uint32_t)ctx->model->n_input) return BAD_PARAM;
    if (ctx->model->variants < 2) {
        complain("query RKNN_QUERY_INPUT_DYNAMIC_RANGE error, rknn model is static shape type");
        return BAD_MODEL;
    }
    rknn_tensor_attr *attr = &ctx->model->in[0][index].plain;
    memset(range, 0, sizeof *range);
    range->index = index;
    range->shape_number = ctx->model->variants;
    range->fmt = attr->fmt;
    range->n_dims = attr->n_dims;
    memcpy(range->name, attr->name, NAME);
    for (int i = 0; i < ctx->model->variants; i++)
        memcpy(range->dyn_range[i], ctx->model->in[i][index].plain.dims, sizeof attr->dims);
    return OK;
}

static const size_t sizes[] = {
    sizeof(rknn_input_output_num), sizeof(rknn_tensor_attr), sizeof(rknn_tensor_attr),
    sizeof(rknn_perf_detail), sizeof(rknn_perf_run), sizeof(rknn_sdk_version),
    sizeof(rknn_mem_size), sizeof(rknn_custom_string), sizeof(rknn_tensor_attr),
    sizeof(rknn_tensor_attr), sizeof(rknn_tensor_attr), sizeof(rknn_tensor_attr), 0,
    sizeof(rknn_input_range), sizeof(rknn_tensor_attr), sizeof(rknn_tensor_attr),
    sizeof(rknn_tensor_attr), sizeof(rknn_tensor_attr)};

int rknn_query(rknn_context id, int query, void *info, uint32_t size) {
    int code = fails("query");
    Ctx *ctx = find(id);
    if (!ctx) return BAD_CONTEXT;
    if (code) return code;
    if (query < 0 || query > 17 || !sizes[query] || size != sizes[query]) return BAD_PARAM;
    if (SMALL && (query == 3 || query == 4 || query == 13 || query > 13)) {
        complain("query %d is not supported in mini runtime!", query);
        return FAILED;
    }
    static char table[] = "stand-in: no layers were computed\n";
    switch (query) {
    case 0:
        *(rknn_input_output_num *)info =
            (rknn_input_output_num){ctx->model->n_input, ctx->model->n_output};
        return OK;
    case 3: *(rknn_perf_detail *)info = (rknn_perf_detail){table, sizeof table}; return OK;
    case 4:
        ((rknn_perf_run *)info)->run_duration = ctx->frame ? ctx->last_us : 0x5A5A5A5A5A5A;
        return OK;
    case 5:
        snprintf(((rknn_sdk_version *)info)->api_version, 256, STANDIN_VERSION " (rkzoo stand-in)");
        snprintf(((rknn_sdk_version *)info)->drv_version, 256, "0.9.8 (rkzoo stand-in)");
        return OK;
    case 6:
        ctx->asked_size = 1;
        memset(info, 0, size);
        ((rknn_mem_size *)info)->total_weight_size = ctx->model->weights;
        ((rknn_mem_size *)info)->total_dma_allocated_size = ctx->model->weights + memory_bytes;
        return OK;
    case 7: memcpy(info, ctx->model->custom, sizeof ctx->model->custom); return OK;
    case 13: return answer_range(ctx, info);
    default: return answer_attr(ctx, query, info);
    }
}

/* ---- settings --------------------------------------------------------------------------- */

#ifndef STANDIN_SMALL
int rknn_set_core_mask(rknn_context id, int mask) {
    int code = fails("set_core_mask");
    Ctx *ctx = find(id);
    if (!ctx) return BAD_CONTEXT;
    if (code) return code;
    if (mask != 0xffff && mask >> ctx->model->cores) return BAD_PARAM;
    if (ctx->model->cores == 1) return FAILED; /* chips with one core refuse it */
    ctx->mask = mask == 0xffff ? (1 << ctx->model->cores) - 1 : mask;
    return OK;
}

int rknn_set_batch_core_num(rknn_context id, int count) {
    Ctx *ctx = find(id);
    if (!ctx) return BAD_CONTEXT;
    return count < 1 || count > ctx->model->cores ? BAD_PARAM : OK;
}
#endif

int rknn_set_input_shapes(rknn_context id, uint32_t count, rknn_tensor_attr *attrs) {
    Ctx *ctx = find(id);
    if (!ctx) return BAD_CONTEXT;
    if (SMALL) return FAILED;
    if (count != (uint32_t)ctx->model->n_input || ctx->model->variants < 2) return BAD_PARAM;
    for (int shape = 0; shape < ctx->model->variants; shape++) {
        int same = 1;
        for (uint32_t i = 0; i < count; i++) {
            rknn_tensor_attr *known = &ctx->model->in[shape][i].plain;
            same = same && known->n_dims == attrs[i].n_dims &&
                   !memcmp(known->dims, attrs[i].dims, 4 * known->n_dims);
        }
        if (same) {
            ctx->variant = shape;
            ctx->chosen = 1;
            memset(ctx->in_mem, 0, sizeof ctx->in_mem);
            memset(ctx->out_mem, 0, sizeof ctx->out_mem);
            return OK;
        }
    }
    return BAD_INPUT;
}

/* ---- memory ----------------------------------------------------------------------------- */

static rknn_tensor_mem *keep(Ctx *ctx, void *address, int fd, uint32_t size, int32_t offset,
                             int mapped) {
    Mem *mem = calloc(1, sizeof *mem);
    mem->told = (rknn_tensor_mem){address, 0, fd, offset, size, mapped ? 1 : 2, NULL};
    mem->mapped = mapped;
    mem->owner = ctx->id;
    pthread_mutex_lock(&lock);
    mem->next = memories;
    memories = mem;
    live_memories++;
    memory_bytes += size;
    pthread_mutex_unlock(&lock);
    return &mem->told;
}

rknn_tensor_mem *rknn_create_mem(rknn_context id, uint32_t size) {
    int code = fails("create_mem");
    Ctx *ctx = find(id);
    if (!ctx || code || !size) return NULL;
    int fd = memfd_create("stand-in", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, size)) return NULL;
    void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) {
        close(fd);
        return NULL;
    }
    memset(address, FRESH, size); /* nobody promises zeros */
    return keep(ctx, address, fd, size, 0, 1);
}

rknn_tensor_mem *rknn_create_mem_from_fd(rknn_context id, int32_t fd, void *address, uint32_t size,
                                         int32_t offset) {
    Ctx *ctx = find(id);
    if (!ctx || fd < 0 || !address || !size) return NULL;
    return keep(ctx, address, fd, size, offset, 0);
}

int rknn_destroy_mem(rknn_context id, rknn_tensor_mem *told) {
    Ctx *ctx = find(id);
    Mem *mem = known_memory(told);
    if (!ctx) return BAD_CONTEXT;
    if (!mem) return BAD_PARAM;
    pthread_mutex_lock(&lock);
    if (ctx->busy) blame("memory is destroyed while the context runs");
    for (Mem **at = &memories; *at; at = &(*at)->next)
        if (*at == mem) {
            *at = mem->next;
            break;
        }
    live_memories--;
    memory_bytes -= mem->told.size;
    for (int i = 0; i < MAX_TENSORS; i++) {
        if (ctx->in_mem[i] == mem) ctx->in_mem[i] = NULL;
        if (ctx->out_mem[i] == mem) ctx->out_mem[i] = NULL;
    }
    pthread_mutex_unlock(&lock);
    if (mem->mapped) {
        munmap(mem->told.virt_addr, mem->told.size);
        close(mem->told.fd);
    }
    free(mem);
    return OK;
}

#ifndef STANDIN_OLD
int rknn_mem_sync(rknn_context id, rknn_tensor_mem *told, int mode) {
    if (!find(id)) return BAD_CONTEXT;
    Mem *mem = known_memory(told);
    if (!mem || mode < 1 || mode > 3) return BAD_PARAM;
    if (mode & 1) mem->synced = 1;
    return OK;
}
#endif

/* The small library takes any description; what becomes of it shows when it runs. */
static int keep_as_told(Ctx *ctx, Mem *mem, const rknn_tensor_attr *attr) {
    uint32_t index = attr->index;
    if (index < (uint32_t)ctx->model->n_input &&
        !strcmp(attr->name, ctx->model->in[0][index].plain.name)) {
        ctx->in_mem[index] = mem;
        ctx->in_how[index] = *attr;
    } else if (index < (uint32_t)ctx->model->n_output) {
        ctx->out_mem[index] = mem;
        ctx->out_how[index] = *attr;
    } else
        return FAILED;
    return OK;
}

int rknn_set_io_mem(rknn_context id, rknn_tensor_mem *told, rknn_tensor_attr *attr) {
    int code = fails("set_io_mem");
    Ctx *ctx = find(id);
    Mem *mem = known_memory(told);
    if (!ctx) return BAD_CONTEXT;
    if (!mem || code) return code ? code : BAD_PARAM;
    Model *model = ctx->model;
    if (model->variants > 1 && !ctx->chosen) {
        complain("terminate called after throwing an instance of 'std::out_of_range'");
        abort();
    }
    ctx->has_memory = ctx->model->has_memory = 1;
    if (SMALL) return keep_as_told(ctx, mem, attr);
    if (attr->index < (uint32_t)model->n_input) {
        rknn_tensor_attr *known = &model->in[ctx->variant][attr->index].native;
        if (!strcmp(known->name, attr->name)) {
            uint32_t wide = known->n_dims == 4 && known->fmt == NHWC ? known->dims[2] : 0;
            uint32_t pixel = width_of(attr->type);
            uint32_t need = known->n_elems * pixel;
            if (wide && known->w_stride > wide) need = need / wide * known->w_stride;
            if (told->size < need || attr->fmt != known->fmt || attr->type != U8) return BAD_PARAM;
            ctx->in_mem[attr->index] = mem;
            ctx->in_how[attr->index] = *attr;
            return OK;
        }
    }
    if (attr->index >= (uint32_t)model->n_output) return BAD_PARAM;
    rknn_tensor_attr *known = &model->out[ctx->variant][attr->index].native;
    if (strcmp(known->name, attr->name) || attr->type != known->type) return BAD_PARAM;
    uint32_t need = attr->fmt == known->fmt ? known->size
                                            : model->out[ctx->variant][attr->index].plain.size;
    if (told->size < need) return BAD_PARAM;
    ctx->out_mem[attr->index] = mem;
    ctx->out_how[attr->index] = *attr;
    return OK;
}

/* ---- running ---------------------------------------------------------------------------- */

static int64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void sleep_until(int64_t due) {
    struct timespec at = {due / 1000000000LL, due % 1000000000LL};
    while (now_ns() < due && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL)) {}
}

/* One of the cores of the mask that is idle, or the next one in turn. Returns what it took. */
static int take_cores(Ctx *ctx) {
    static int turn;
    int cores = ctx->model->cores;
    if (ctx->mask) {
        for (int i = 0; i < cores; i++)
            if (ctx->mask >> i & 1) pthread_mutex_lock(&core_lock[i]);
        return ctx->mask;
    }
    for (int i = 0; i < cores; i++)
        if (!pthread_mutex_trylock(&core_lock[i])) return 1 << i;
    int chosen = __sync_fetch_and_add(&turn, 1) % cores;
    pthread_mutex_lock(&core_lock[chosen]);
    return 1 << chosen;
}

static void give_cores(int mask) {
    for (int i = 0; i < MAX_CORES; i++)
        if (mask >> i & 1) pthread_mutex_unlock(&core_lock[i]);
}

/* Two sums over 64-bit words, the last padded with zeros; recording.py does the same. */
static void sums(uint64_t *sum, uint64_t *weighted, uint64_t *place, const uint8_t *data,
                 size_t size) {
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, data + i, size - i < 8 ? size - i : 8);
        *sum += word;
        *weighted += word * ++*place;
    }
}

static uint8_t *room(Ctx *ctx, size_t size) {
    if (ctx->flat_size < size) {
        free(ctx->flat);
        ctx->flat = malloc(size);
        ctx->flat_size = size;
    }
    return ctx->flat;
}

/* What the small library makes of an input's memory, in `to`: the picture, or the codes in the
 * order (N, H, W, C). Returns 0 where the description is one that it does not act upon. */
static int understood(Ctx *ctx, int index, const uint8_t *from, uint8_t *to) {
    const rknn_tensor_attr *plain = &ctx->model->in[ctx->variant][index].plain;
    const rknn_tensor_attr *native = &ctx->model->in[ctx->variant][index].native;
    const rknn_tensor_attr *how = &ctx->in_how[index];
    if (is_picture(plain)) {
        if (how->fmt != NHWC || !(how->type == U8 ? !how->pass_through : how->pass_through))
            return 0;
        size_t row = (size_t)plain->dims[2] * plain->dims[3];
        size_t step = native->w_stride > plain->dims[2] ? native->w_stride * plain->dims[3] : row;
        for (size_t y = 0; y < (size_t)plain->dims[0] * plain->dims[1]; y++)
            memcpy(to + y * row, from + y * step, row);
        return 1;
    }
    if (native->fmt == NC1HWC2) {
        if (how->fmt != NC1HWC2 || how->type != I8) return 0;
        size_t channels = plain->dims[3], cells = (size_t)plain->dims[1] * plain->dims[2];
        size_t depth = native->dims[4], block = (size_t)native->dims[2] * native->dims[3];
        for (size_t cell = 0; cell < cells; cell++)
            for (size_t channel = 0; channel < channels; channel++)
                to[cell * channels + channel] =
                    from[(channel / depth * block + cell) * depth + channel % depth];
        return 1;
    }
    if (how->type == native->type)
        memcpy(to, from, recorded(native));
    else if (how->type == F32 && (how->fmt == NHWC || how->fmt == NCHW))
        for (uint32_t i = 0; i < native->n_elems; i++) {
            float code = ((const float *)(const void *)from)[i] / native->scale + native->zp;
            code += code < 0 ? -.5f : .5f;
            to[i] = (uint8_t)(int8_t)(code < -128 ? -128 : code > 127 ? 127 : code);
        }
    else
        return 0;
    return 1;
}

static int gather_input(Ctx *ctx, int index, const uint8_t **data, size_t *size) {
    rknn_tensor_attr *known = &ctx->model->in[ctx->variant][index].native;
    if (ctx->copied[index]) {
        *data = ctx->copied[index], *size = ctx->copied_size[index];
        return OK;
    }
    Mem *mem = ctx->in_mem[index];
    if (!mem) return BAD_INPUT;
    if (SMALL) {
        const rknn_tensor_attr *plain = &ctx->model->in[ctx->variant][index].plain;
        *size = (size_t)plain->n_elems * (is_picture(plain) ? 1 : width_of(plain->type));
        uint8_t *to = room(ctx, *size);
        *data = to;
        if (mem->told.size < known->size_with_stride) {
            blame("an input's memory is too small");
            return BAD_INPUT;
        }
        if (!understood(ctx, index, (uint8_t *)mem->told.virt_addr + mem->told.offset, to))
            memset(to, 0, *size);
        return OK;
    }
    const uint8_t *from = (uint8_t *)mem->told.virt_addr + mem->told.offset;
    uint32_t wide = known->n_dims == 4 && known->fmt == NHWC ? known->dims[2] : 0;
    *size = known->n_elems;
    *data = from;
    if (wide && known->w_stride > wide) {
        room(ctx, *size);
        size_t row = (size_t)wide * known->dims[3], step = (size_t)known->w_stride * known->dims[3];
        for (size_t y = 0; y < (size_t)known->dims[0] * known->dims[1]; y++)
            memcpy(ctx->flat + y * row, from + y * step, row);
        *data = ctx->flat;
    }
    return OK;
}

static int choose(Ctx *ctx) {
    uint64_t sum = 0, weighted = 0, place = 0;
    for (int i = 0; i < ctx->model->n_input; i++) {
        const uint8_t *data;
        size_t size;
        if (gather_input(ctx, i, &data, &size)) return BAD_INPUT;
        sums(&sum, &weighted, &place, data, size);
    }
    uint64_t hash = sum ^ (weighted << 32 | weighted >> 32);
    const Record *fallback = NULL;
    ctx->answer = NULL;
    for (int i = 0; i < ctx->model->n_records; i++) {
        const Record *record = &ctx->model->records[i];
        if (record->shape != (uint32_t)ctx->variant) continue;
        if (!fallback) fallback = record;
        if (record->hash == hash) ctx->answer = record;
    }
    const char *strict = getenv("STANDIN_STRICT");
    if (!ctx->answer && !(strict && *strict == '1')) ctx->answer = fallback;
    return ctx->answer ? OK : BAD_INPUT;
}

static const uint8_t *native_of(Ctx *ctx, int index) {
    const uint8_t *at = ctx->answer->data;
    for (int i = 0; i < index; i++) at += recorded(&ctx->model->out[ctx->variant][i].native);
    return at;
}

/* From the recorded layout into `fmt`, whole or as floats. */
static void convert(Ctx *ctx, int index, int fmt, int want_float, uint8_t *to) {
    const rknn_tensor_attr *plain = &ctx->model->out[ctx->variant][index].plain;
    const rknn_tensor_attr *native = &ctx->model->out[ctx->variant][index].native;
    const uint8_t *from = native_of(ctx, index);
    size_t wide = width_of(native->type);
    int blocks = native->fmt == NC1HWC2;
    size_t channels = plain->fmt == NCHW ? plain->dims[1] : 1;
    size_t cells = plain->n_elems / channels;
    size_t depth = blocks ? native->dims[4] : 1;
    size_t block = blocks ? (size_t)native->dims[2] * native->dims[3] : cells;
    for (size_t channel = 0; channel < channels; channel++)
        for (size_t cell = 0; cell < cells; cell++) {
            size_t source = (channel / depth * block + cell) * depth + channel % depth;
            size_t target = fmt == NHWC ? cell * channels + channel : channel * cells + cell;
            const uint8_t *number = from + source * wide;
            if (want_float && native->type == I8)
                ((float *)to)[target] = ((int8_t)*number - native->zp) * native->scale;
            else
                memcpy(to + target * wide, number, wide);
        }
}

static void write_output(Ctx *ctx, int index, uint8_t *to) {
    const rknn_tensor_attr *native = &ctx->model->out[ctx->variant][index].native;
    int fmt = ctx->out_how[index].fmt;
    if (SMALL && fmt == NCHW && native->n_dims >= 4)
        memset(to, 0x7f, ctx->model->out[ctx->variant][index].plain.size); /* it writes no such */
    else if (fmt == native->fmt)
        memcpy(to, native_of(ctx, index), recorded(native));
    else
        convert(ctx, index, fmt, 0, to);
    if (SMALL && native->size > recorded(native))
        memset(to + recorded(native), 0x7f, native->size - recorded(native));
}

/* What the processor wrote to fresh memory lies in its cache, in whole lines, and comes down after
 * the NPU is done. */
static void spoil(Mem *mem, const uint8_t *before) {
    uint8_t *now = mem->told.virt_addr;
    for (uint32_t at = 0; at < mem->told.size; at += LINE) {
        uint32_t size = mem->told.size - at < LINE ? mem->told.size - at : LINE;
        int dirty = 0;
        for (uint32_t i = 0; i < size; i++) dirty |= before[at + i] != FRESH;
        if (dirty) memcpy(now + at, before + at, size);
    }
}

static void hand_out(Ctx *ctx) {
    for (int i = 0; i < ctx->model->n_output; i++) {
        Mem *mem = ctx->out_mem[i];
        if (!mem) continue;
        const Tensor *out = &ctx->model->out[ctx->variant][i];
        int whole = ctx->out_how[i].fmt == out->native.fmt || out->plain.n_dims != 4;
        if (mem->told.size < (whole ? out->native.size : out->plain.size)) {
            blame("an output is written beyond its memory");
            continue;
        }
        uint8_t *before = NULL;
        if (mem->mapped && !mem->written && !mem->synced) {
            before = malloc(mem->told.size);
            memcpy(before, mem->told.virt_addr, mem->told.size);
        }
        write_output(ctx, i, (uint8_t *)mem->told.virt_addr + mem->told.offset);
        if (before) spoil(mem, before);
        free(before);
        mem->written = 1;
    }
}

static long jitter(void) {
    const char *text = getenv("STANDIN_JITTER_US");
    long most = text ? atol(text) : 0;
    static unsigned seed = 7;
    return most > 0 ? rand_r(&seed) % most : 0;
}

static int compute(Ctx *ctx, int blocking) {
    int64_t start = now_ns();
    int code = choose(ctx);
    if (code) return code;
    hand_out(ctx);
    ctx->due_ns = start + 1000LL * (ctx->model->delay_us + jitter());
    if (blocking) sleep_until(ctx->due_ns);
    ctx->last_us = ((blocking ? now_ns() : ctx->due_ns) - start) / 1000;
    return OK;
}

#if !defined(STANDIN_SMALL) && !defined(STANDIN_OLD)
int rknn_register_custom_ops(rknn_context id, rknn_custom_op *ops, uint32_t count) {
    int code = fails("register_custom_ops");
    Ctx *ctx = find(id);
    if (!ctx) return BAD_CONTEXT;
    if (code) return code;
    if (!count || ctx->n_custom) return BAD_PARAM; /* all at once, or none */
    for (uint32_t i = 0; i < count; i++)
        if (ops[i].target != 1 || !ops[i].compute || strncmp(ops[i].op_type, "cst", 3))
            return BAD_PARAM;
    ctx->custom = malloc(count * sizeof *ops);
    memcpy(ctx->custom, ops, count * sizeof *ops);
    ctx->n_custom = count;
    return OK;
}
#endif

enum { CUSTOM_IN = 8, CUSTOM_SHIFT = 3 };
static float custom_in[CUSTOM_SHIFT + CUSTOM_IN], custom_out[CUSTOM_SHIFT + CUSTOM_IN];
static int custom_fmt = NCHW;

/* What the custom operators of a run are handed, 1 x 2 x 2 x 2, and in which format they are told
 * that it lies. */
void standin_custom_in(const float *numbers, int fmt) {
    memcpy(custom_in + CUSTOM_SHIFT, numbers, CUSTOM_IN * sizeof *numbers);
    custom_fmt = fmt;
}

/* What the last of them left: its output is 1 x 2. */
void standin_custom_out(float *numbers) {
    memcpy(numbers, custom_out + CUSTOM_SHIFT, 2 * sizeof *numbers);
}

static void custom_tensor(rknn_custom_op_tensor *tensor, float *at, uint32_t n_dims, uint32_t each) {
    memset(tensor, 0, sizeof *tensor);
    tensor->attr.n_dims = n_dims;
    tensor->attr.n_elems = 1;
    for (uint32_t i = 0; i < n_dims; i++)
        tensor->attr.n_elems *= tensor->attr.dims[i] = i ? each : 1;
    tensor->attr.size = tensor->attr.n_elems * sizeof *at;
    tensor->attr.fmt = n_dims == 4 ? custom_fmt : UNDEFINED;
    tensor->attr.type = F32;
    /* The numbers begin behind an offset. */
    tensor->mem.virt_addr = at;
    tensor->mem.offset = CUSTOM_SHIFT * sizeof *at;
    tensor->mem.size = tensor->attr.size;
}

static int run_custom(Ctx *ctx) {
    for (uint32_t i = 0; i < ctx->n_custom; i++) {
        rknn_custom_op_context context = {.target = 1, .internal_ctx = ctx->id};
        rknn_custom_op_tensor in, out;
        custom_tensor(&in, custom_in, 4, 2);
        custom_tensor(&out, custom_out, 2, 2);
        if (ctx->custom[i].compute(&context, &in, 1, &out, 1)) {
            complain("the custom operator %s failed", ctx->custom[i].op_type);
            return FAILED;
        }
    }
    return OK;
}

int rknn_run(rknn_context id, rknn_run_extend *extend) {
    int code = fails("run");
    Ctx *ctx = find(id);
    if (!ctx) return BAD_CONTEXT;
    if (code) return code;
    if (__sync_lock_test_and_set(&ctx->busy, 1)) {
        pthread_mutex_lock(&lock);
        blame("two threads run one context at once");
        pthread_mutex_unlock(&lock);
        return FAILED;
    }
    int taken = take_cores(ctx);
    pthread_mutex_lock(&lock);
    runs++;
    if (++running > most_running) most_running = running;
    pthread_mutex_unlock(&lock);
    int blocking = SMALL || !(ctx->flags & ASYNC) || !extend || !extend->non_block;
    code = run_custom(ctx);
    if (!code) code = compute(ctx, blocking);
    ctx->waiting = !blocking;
    if (extend) extend->frame_id = ctx->frame;
    ctx->frame++;
    pthread_mutex_lock(&lock);
    running--;
    pthread_mutex_unlock(&lock);
    give_cores(taken);
    __sync_lock_release(&ctx->busy);
    return code;
}

int rknn_wait(rknn_context id, rknn_run_extend *extend) {
    (void)extend;
    int code = fails("wait");
    Ctx *ctx = find(id);
    if (!ctx) return BAD_CONTEXT;
    if (code) return code;
    if (SMALL || !ctx->waiting) return FAILED;
    sleep_until(ctx->due_ns);
    ctx->waiting = 0;
    return OK;
}

int rknn_inputs_set(rknn_context id, uint32_t count, rknn_input *inputs) {
    int code = fails("inputs_set");
    Ctx *ctx = find(id);
    if (!ctx) return BAD_CONTEXT;
    if (code) return code;
    if (SMALL && !one_picture(ctx)) {
        complain("context config invalid!");
        return BAD_PARAM;
    }
    if (count != (uint32_t)ctx->model->n_input) return BAD_INPUT;
    for (uint32_t i = 0; i < count; i++) {
        if (inputs[i].index >= count) return BAD_INPUT;
        const rknn_tensor_attr *known = &ctx->model->in[ctx->variant][inputs[i].index].plain;
        if (inputs[i].size != known->n_elems * width_of(inputs[i].type)) return BAD_INPUT;
        uint8_t **to = &ctx->copied[inputs[i].index];
        if (ctx->copied_size[inputs[i].index] != inputs[i].size) {
            free(*to);
            *to = calloc(1, inputs[i].size);
            ctx->copied_size[inputs[i].index] = inputs[i].size;
        }
        if (known->n_dims == 4 && inputs[i].fmt != NHWC) {
            complain("Meet unsupported src layout for normalize: %d", inputs[i].fmt);
            continue;
        }
        memcpy(*to, inputs[i].buf, inputs[i].size);
    }
    return OK;
}

int rknn_outputs_get(rknn_context id, uint32_t count, rknn_output *outputs,
                     rknn_output_extend *extend) {
    int code = fails("outputs_get");
    Ctx *ctx = find(id);
    if (!ctx) return BAD_CONTEXT;
    if (code) return code;
    if (SMALL && (!one_picture(ctx) || outputs[0].want_float)) {
        complain("context config invalid!");
        return BAD_PARAM;
    }
    if (count != (uint32_t)ctx->model->n_output || !ctx->answer) return BAD_OUTPUT;
    for (uint32_t i = 0; i < count; i++) {
        if (outputs[i].index >= count) return BAD_OUTPUT;
        const rknn_tensor_attr *plain = &ctx->model->out[ctx->variant][outputs[i].index].plain;
        uint32_t need = outputs[i].want_float ? 4 * plain->n_elems : plain->size;
        if (!outputs[i].is_prealloc) {
            outputs[i].buf = malloc(need);
            outputs[i].size = need;
        }
        if (outputs[i].size < need) return BAD_OUTPUT;
        convert(ctx, outputs[i].index, plain->fmt, outputs[i].want_float, outputs[i].buf);
    }
    if (extend) extend->frame_id = ctx->frame - 1;
    ctx->outputs_held++;
    return OK;
}

int rknn_outputs_release(rknn_context id, uint32_t count, rknn_output *outputs) {
    Ctx *ctx = find(id);
    if (!ctx) return BAD_CONTEXT;
    if (!ctx->outputs_held) {
        pthread_mutex_lock(&lock);
        blame("outputs are released twice");
        pthread_mutex_unlock(&lock);
        return BAD_OUTPUT;
    }
    ctx->outputs_held--;
    for (uint32_t i = 0; i < count; i++)
        if (!outputs[i].is_prealloc) free(outputs[i].buf);
    return OK;
}
