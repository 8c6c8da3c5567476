/* winograd_job.h - what winograd.c makes of a problem: blocks of tiles, and where each thread's parts lie in the workspace. */
#ifndef TIDE_CPU_WINOGRAD_JOB_H
#define TIDE_CPU_WINOGRAD_JOB_H
#include "winograd_tile.h"

/** A convolution or one of its gradients. Tiles cover the plane of y, which for the weight gradient is g. */
typedef struct {
    images x, y;
    int64_t pad_h, pad_w;
    int64_t down, across; /* tiles of an image                                                        */
    int64_t strips;       /* rows of tiles of all images                                              */
    int64_t some, blocks; /* strips of a block; blocks                                                */
    int64_t tiles;        /* of a block                                                               */
    int64_t most;         /* strips of one image whose rows are in scratch at a time                  */
    bool by_rows;         /* taps' points are not kept: each thread makes them again, 6 at a time     */
    int64_t v_point, z_point,
        u_point;           /* from point to point of v, of what has y's channels, of taps: odd numbers of lines, lest
                                 all points of a tile meet in the same sets of the cache               */
    int64_t in, v, z, out; /* where a thread's source rows, v, z or m, and result rows begin           */
    size_t each;           /* floats of a thread                                                       */
    size_t taps;           /* floats all threads share: taps or their points; for weights a thread's sum */
} job;

/* What is to stay in the second level cache: blocks; source and result rows. */
enum { BLOCK_BYTES = 288 * 1024, SMALL_BYTES = 176 * 1024, ROWS_BYTES = 48 * 1024 };
/* Points of taps are kept where they are up to the first, and beyond the second, where not even the taps stay in the cache. */
enum { TAPS_BYTES = 192 * 1024, MANY_BYTES = 640 * 1024 };

static int64_t line_apart(int64_t floats) { return (floats + 15) / 32 * 32 + 16; }

static void job_make(job *j, const td_view *x, const td_view *y, int64_t pad_h, int64_t pad_w)
{
    *j = (job){.x = images_of(x), .y = images_of(y), .pad_h = pad_h, .pad_w = pad_w};
    j->down = ceil_div(j->y.h, 4);
    j->across = ceil_div(j->y.w, 4);
    j->strips = j->x.n * j->down;
    j->u_point = line_apart(j->x.c * j->y.lanes);
    j->taps = (size_t)(POINTS * j->u_point);
}

/** Floats of the source and result rows of some strips. */
static int64_t rows_in(const job *j, int64_t strips) { return (4 * strips + 2) * (4 * j->across + 2) * j->x.lanes; }
static int64_t rows_out(const job *j, int64_t strips) { return 4 * strips * 4 * j->across * j->y.lanes; }

/** Shares out the strips: as many a block as have `bytes` at `floats` a tile, but with `tiles` tiles at least. */
static void job_blocks(job *j, int64_t bytes, int64_t floats, int64_t tiles, int threads)
{
    int64_t strip_bytes = floats * j->across * (int64_t)sizeof(float);
    int64_t some = most(most(bytes / strip_bytes, ceil_div(tiles, j->across)), 1);
    j->blocks = ceil_div(ceil_div(j->strips, least(some, j->strips)), threads) * threads;
    j->some = ceil_div(j->strips, j->blocks);
    j->blocks = ceil_div(j->strips, j->some);
    j->tiles = j->some * j->across;
    int64_t rows = 4 * j->across * 4 * most(j->x.lanes, j->y.lanes) * (int64_t)sizeof(float);
    j->most = least(least(j->some, j->down), most(1, ROWS_BYTES / rows));
}

/** Forward and input gradient. m, which z stands for, takes the place of v: it begins `spare` points before, so that points
 *  that are written lie behind those still to be read. Source rows are where m will be, result rows where v was. */
static void job_make_results(job *j, const td_view *x, const td_view *y, int64_t pad_h, int64_t pad_w, int threads)
{
    job_make(j, x, y, pad_h, pad_w);
    int64_t depth = j->x.c, broad = most(j->x.lanes, j->y.lanes), narrow = least(j->x.lanes, j->y.lanes);
    int64_t points = (int64_t)(j->taps * sizeof(float));
    j->by_rows = points > TAPS_BYTES && points <= MANY_BYTES;
    int64_t spare = j->by_rows ? 6 : 1, floats = POINTS * broad + spare * narrow;
    if (j->by_rows) job_blocks(j, BLOCK_BYTES, floats, 22, threads);
    else if (points <= TAPS_BYTES) job_blocks(j, SMALL_BYTES, floats, 16, threads);
    else job_blocks(j, BLOCK_BYTES, floats, 48, threads);
    j->v_point = line_apart(j->tiles * j->x.lanes);
    j->z_point = line_apart(j->tiles * j->y.lanes);
    if (j->by_rows) {
        j->taps = (size_t)line_apart(9 * depth * j->y.lanes);
        j->u_point = line_apart(depth * least(2 * LANES, j->y.lanes));
        j->in = j->z = 6 * j->u_point;
    }
    int64_t ahead = most(spare * j->z_point, POINTS * j->z_point - (POINTS - spare) * j->v_point);
    j->v = j->in + most(ahead, line_apart(rows_in(j, j->most)));
    j->out = j->z + POINTS * j->z_point;
    j->each = (size_t)most(j->v + POINTS * j->v_point, j->out + line_apart(rows_out(j, j->most)));
}

/** Weight gradient: sums have the places of taps. */
static void job_make_weights(job *j, const td_view *x, const td_view *g, int64_t pad_h, int64_t pad_w, int threads)
{
    job_make(j, x, g, pad_h, pad_w);
    job_blocks(j, BLOCK_BYTES, POINTS * (j->x.lanes + j->y.lanes), 48, threads);
    j->v_point = line_apart(j->tiles * j->x.lanes);
    j->z_point = line_apart(j->tiles * j->y.lanes);
    j->v = line_apart(most(rows_in(j, j->most), rows_out(j, j->most)));
    j->z = j->v + POINTS * j->v_point;
    j->each = (size_t)(j->z + POINTS * j->z_point);
}

#endif
