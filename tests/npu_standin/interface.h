/* A stand-in's view of the interface of Rockchip's NPU library, written from its published
 * facts (version 2.3.2): names, order and width of fields, numbers. It serves the tests only:
 * standin.c implements it, and the layouts that rkzoo.runtime.npu_api states are held against
 * what a C compiler makes of it. Not the vendor's header. */
#ifndef RKZOO_STANDIN_INTERFACE_H
#define RKZOO_STANDIN_INTERFACE_H

#include <stdint.h>

enum {
    OK = 0, FAILED = -1, TIMEOUT = -2, NO_DEVICE = -3, NO_MEMORY = -4, BAD_PARAM = -5,
    BAD_MODEL = -6, BAD_CONTEXT = -7, BAD_INPUT = -8, BAD_OUTPUT = -9
};
enum { DIMS = 16, NAME = 256, SHAPES = 512 };
enum { F32 = 0, F16, I8, U8, I16, U16, I32, U32, I64, BOOLEAN };
enum { NCHW = 0, NHWC, NC1HWC2, UNDEFINED };

#ifdef __arm__
typedef uint32_t rknn_context;
#elif defined(STANDIN_32)
typedef uint32_t rknn_context; /* to lay structures out as 32-bit Arm does */
#else
typedef uint64_t rknn_context;
#endif

typedef struct { uint32_t n_input, n_output; } rknn_input_output_num;

typedef struct {
    uint32_t index, n_dims, dims[DIMS];
    char name[NAME];
    uint32_t n_elems, size;
    int fmt, type, qnt_type;
    int8_t fl;
    int32_t zp;
    float scale;
    uint32_t w_stride, size_with_stride;
    uint8_t pass_through;
    uint32_t h_stride;
} rknn_tensor_attr;

typedef struct {
    uint32_t index, shape_number;
    int fmt;
    char name[NAME];
    uint32_t dyn_range[SHAPES][DIMS];
    uint32_t n_dims;
} rknn_input_range;

typedef struct { char *perf_data; uint64_t data_len; } rknn_perf_detail;
typedef struct { int64_t run_duration; } rknn_perf_run;
typedef struct { char api_version[256], drv_version[256]; } rknn_sdk_version;

typedef struct {
    uint32_t total_weight_size, total_internal_size;
    uint64_t total_dma_allocated_size;
    uint32_t total_sram_size, free_sram_size, reserved[10];
} rknn_mem_size;

typedef struct { char string[1024]; } rknn_custom_string;

typedef struct {
    void *virt_addr;
    uint64_t phys_addr;
    int32_t fd, offset;
    uint32_t size, flags;
    void *priv_data;
} rknn_tensor_mem;

typedef struct {
    uint32_t index;
    void *buf;
    uint32_t size;
    uint8_t pass_through;
    int type, fmt;
} rknn_input;

typedef struct {
    uint8_t want_float, is_prealloc;
    uint32_t index;
    void *buf;
    uint32_t size;
} rknn_output;

typedef struct {
    rknn_context ctx;
    int32_t real_model_offset;
    uint32_t real_model_size;
    int32_t model_buffer_fd;
    uint32_t model_buffer_flags;
    uint8_t reserved[112];
} rknn_init_extend;

typedef struct { uint64_t frame_id; int32_t non_block, timeout_ms, fence_fd; } rknn_run_extend;
typedef struct { uint64_t frame_id; } rknn_output_extend;

/* rknn_custom_op.h */
typedef struct {
    int target;
    rknn_context internal_ctx;
    void *cl_context, *cl_command_queue, *cl_kernel;
    void *priv_data;
} rknn_custom_op_context;

typedef struct { rknn_tensor_attr attr; rknn_tensor_mem mem; } rknn_custom_op_tensor;

typedef int custom_call(rknn_custom_op_context *, rknn_custom_op_tensor *, uint32_t,
                        rknn_custom_op_tensor *, uint32_t);

typedef struct {
    uint32_t version;
    int target;
    char op_type[NAME], cl_kernel_name[NAME];
    char *cl_kernel_source;
    uint64_t cl_source_size;
    char cl_build_options[NAME];
    custom_call *init, *prepare, *compute, *compute_native;
    int (*destroy)(rknn_custom_op_context *);
} rknn_custom_op;

int rknn_init(rknn_context *, void *, uint32_t, uint32_t, rknn_init_extend *);
int rknn_dup_context(rknn_context *, rknn_context *);
int rknn_destroy(rknn_context);
int rknn_query(rknn_context, int, void *, uint32_t);
int rknn_inputs_set(rknn_context, uint32_t, rknn_input *);
int rknn_set_batch_core_num(rknn_context, int);
int rknn_set_core_mask(rknn_context, int);
int rknn_run(rknn_context, rknn_run_extend *);
int rknn_wait(rknn_context, rknn_run_extend *);
int rknn_outputs_get(rknn_context, uint32_t, rknn_output *, rknn_output_extend *);
int rknn_outputs_release(rknn_context, uint32_t, rknn_output *);
rknn_tensor_mem *rknn_create_mem(rknn_context, uint32_t);
rknn_tensor_mem *rknn_create_mem_from_fd(rknn_context, int32_t, void *, uint32_t, int32_t);
int rknn_destroy_mem(rknn_context, rknn_tensor_mem *);
int rknn_set_io_mem(rknn_context, rknn_tensor_mem *, rknn_tensor_attr *);
int rknn_set_input_shapes(rknn_context, uint32_t, rknn_tensor_attr *);
int rknn_mem_sync(rknn_context, rknn_tensor_mem *, int);
int rknn_register_custom_ops(rknn_context, rknn_custom_op *, uint32_t);

#endif
