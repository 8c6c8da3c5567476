/* onednn_library.h - oneDNN 2, loaded when it is first wanted: its functions by name, and what its errors become.
 * For onednn.c alone. */
#ifndef TIDE_CPU_ONEDNN_LIBRARY_H
#define TIDE_CPU_ONEDNN_LIBRARY_H
#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tide/plugin.h>

#define TIDE_ONEDNN_LIBRARY "libdnnl.so.2" /* by its major version, as the loader finds it */

#define FUNCTIONS(X)                                  \
    X(version)                                        \
    X(engine_create)                                  \
    X(stream_create)                                  \
    X(stream_destroy)                                 \
    X(stream_wait)                                    \
    X(memory_create)                                  \
    X(memory_destroy)                                 \
    X(memory_set_data_handle)                         \
    X(memory_desc_init_by_strides)                    \
    X(memory_desc_init_by_tag)                        \
    X(memory_desc_equal)                              \
    X(memory_desc_get_size)                           \
    X(dilated_convolution_forward_desc_init)          \
    X(dilated_convolution_backward_data_desc_init)    \
    X(dilated_convolution_backward_weights_desc_init) \
    X(primitive_attr_create)                          \
    X(primitive_attr_destroy)                         \
    X(primitive_attr_set_scratchpad_mode)             \
    X(primitive_attr_set_post_ops)                    \
    X(post_ops_create)                                \
    X(post_ops_destroy)                               \
    X(post_ops_append_eltwise)                        \
    X(primitive_desc_create)                          \
    X(primitive_desc_destroy)                         \
    X(primitive_desc_query_md)                        \
    X(reorder_primitive_desc_create)                  \
    X(primitive_create)                               \
    X(primitive_destroy)                              \
    X(primitive_execute)

static struct {
#define MEMBER(f) __typeof__(dnnl_##f) *f;
    FUNCTIONS(MEMBER)
#undef MEMBER
    dnnl_engine_t engine;
    bool usable;
} lib;

static bool find_functions(void *so)
{
    void *p;
#define FIND(f)                                     \
    if (!(p = dlsym(so, "dnnl_" #f))) return false; \
    memcpy(&lib.f, &p, sizeof p); /* ISO C has no cast from an object pointer to a function pointer */
    FUNCTIONS(FIND)
#undef FIND
    return true;
}

/** What is wrong with the library at path, or NULL: then it is ready. */
static const char *open_library(const char *path)
{
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!so) {
        const char *why = dlerror();
        return why ? why : path;
    }
    if (!find_functions(so)) return "a function of oneDNN 2 is missing";
    if (lib.version()->major != DNNL_VERSION_MAJOR) return "it is not oneDNN 2";
    if (lib.version()->cpu_runtime != DNNL_RUNTIME_OMP) return "it is not the build on OpenMP";
    return lib.engine_create(&lib.engine, dnnl_cpu, 0) ? "it gives no CPU engine" : NULL;
}

/* A path that the user has given is the only one tried. */
static void load(void)
{
    const char *given = getenv("TIDE_ONEDNN"), *path = given && strchr(given, '/') ? given : TIDE_ONEDNN_LIBRARY;
    const char *why = open_library(path);
    lib.usable = !why;
    if (why) fprintf(stderr, "tide: convolutions go without oneDNN (%s): %s\n", path, why);
}

static bool loaded(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return lib.usable;
}

static const char *reason(dnnl_status_t s)
{
    return s == dnnl_out_of_memory       ? "out of memory"
           : s == dnnl_invalid_arguments ? "invalid arguments"
           : s == dnnl_unimplemented     ? "not implemented"
                                         : "runtime error";
}

static bool ok(dnnl_status_t s, const char *op, const char *what)
{
    if (s == dnnl_success) return true;
    return td_fail_as(s == dnnl_out_of_memory ? TD_ENOMEM : TD_EPLUGIN, "%s: oneDNN: %s: %s", op, what, reason(s));
}

#endif
