/* The part of librga's C interface that rkzoo uses, written from its published facts (headers of
 * librga 1.8 to 1.10). */
#ifndef RGA_INTERFACE_H
#define RGA_INTERFACE_H
#include <stdint.h>

typedef struct {
    int x, y, width, height;
} im_rect;

typedef struct {
    void *vir_addr, *phy_addr;
    int fd;
    int width, height, wstride, hstride, format;
    int color_space_mode;
    union {
        int global_alpha;
        struct {
            uint16_t alpha0, alpha1;
        } alpha_bit;
    };
    int rd_mode;
    int color;
    struct {
        int max, min;
    } colorkey_range;
    struct {
        int scale_r, scale_g, scale_b, offset_r, offset_g, offset_b;
    } nn;
    int rop_code;
    uint32_t handle;
} rga_buffer_t;

typedef struct {
    uint32_t width, height, format;
} im_handle_param_t;

enum { FORMAT_RGB = 0x200, FORMAT_BGR = 0x700, FORMAT_NV12 = 0xa00 };
enum { NAME_VERSION = 1, BT601_LIMITED = 1, USAGE_SYNC = 1 << 19 };
enum { STATUS_SUCCESS = 1, STATUS_FAILED = 0, STATUS_INVALID = -3, STATUS_ILLEGAL = -4 };

const char *querystring(int name);
const char *imStrError_t(int status);
uint32_t importbuffer_fd(int fd, im_handle_param_t *how);
uint32_t importbuffer_virtualaddr(void *address, im_handle_param_t *how);
int releasebuffer_handle(uint32_t handle);
rga_buffer_t wrapbuffer_handle_t(uint32_t handle, int width, int height, int wstride, int hstride,
                                 int format);
int improcess(rga_buffer_t from, rga_buffer_t to, rga_buffer_t pattern, im_rect from_place,
              im_rect to_place, im_rect pattern_place, int usage);
#endif
