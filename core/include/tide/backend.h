/* tide/backend.h - a backend: memory, queues and capture of one kind of device. Its kernels are td_kernel entries. */
#ifndef TIDE_BACKEND_H
#define TIDE_BACKEND_H
#include <tide/option.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef enum { TD_H2D, TD_D2H, TD_D2D } td_copy_kind;

/** What a device is. unified: the host may read its memory; async: kernels run after run() has returned. */
typedef struct {
    size_t size;
    const char *name;                    /* "AMD EPYC", "NVIDIA H200"                                                 */
    uint64_t mem_total, mem_free, align; /* bytes                                                  */
    int32_t ordinal;
    uint32_t unified, async, capture, dtypes;
} td_props;

typedef struct td_backend {
    size_t size;
    const char *name, *doc; /* "cpu"                                                               */
    td_opts opts;
    int (*score)(void); /* 0 = not on this machine, td_fail may say why; must work without a driver */
    int (*count)(void); /* devices                                                                 */
    bool (*open)(int ordinal, const void *opts, void **dev);
    void (*close)(void *dev);
    bool (*props)(void *dev, td_props *); /* fills up to the caller's size                         */
    bool (*alloc)(void *dev, void *stream, size_t, int pinned, void **); /* false: out of memory   */
    void (*free)(void *dev, void *, int pinned);
    bool (*copy)(void *dev, void *stream, void *dst, const void *src, size_t, td_copy_kind);
    bool (*copy2d)(void *dev, void *stream, void *dst, size_t dst_pitch, const void *src, size_t src_pitch,
                   size_t width, size_t rows, td_copy_kind); /* NULL = row by row                  */
    bool (*peer)(void *dst_dev, void *stream, void *dst, void *src_dev, const void *src, size_t); /* NULL = by host */
    bool (*fill)(void *dev, void *stream, void *dst, int byte, size_t);
    bool (*stream_new)(void *dev, void **);
    void (*stream_free)(void *dev, void *);
    bool (*stream_sync)(void *dev, void *); /* device faults surface in syncs, nowhere else; NULL = synchronous */
    bool (*event_new)(void *dev, void **);
    void (*event_free)(void *dev, void *);
    bool (*event_record)(void *dev, void *ev, void *stream);
    bool (*event_wait)(void *dev, void *ev, void *stream);
    bool (*event_done)(void *dev, void *ev, int *done);
    bool (*event_sync)(void *dev, void *ev);
    bool (*event_ms)(void *dev, void *from, void *to, double *ms);
    bool (*cap_begin)(void *dev, void *stream); /* NULL = no capture: the core replays its own list */
    bool (*cap_end)(void *dev, void *stream, void **exe, void *prev); /* prev: try to update it    */
    bool (*cap_launch)(void *dev, void *exe, void *stream);
    void (*cap_free)(void *dev, void *exe);
    const void *(*extension)(const char *name); /* "nccl.v1"                                       */
} td_backend;

/** Extension "threads.v1" of a backend that runs on the host: how many threads its loops use. */
typedef struct {
    int (*threads)(int n); /* n < 1: only ask; returns the number */
} td_ext_threads;

/** Extension "parallel.v1" of such a backend: runs body(arg, i, thread) for i in 0 .. n - 1, each i on one of its threads, and waits. */
typedef struct {
    void (*run)(int64_t n, void (*body)(void *arg, int64_t i, int thread), void *arg);
} td_ext_parallel;

#ifdef __cplusplus
}
#endif
#endif
