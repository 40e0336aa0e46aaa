/* Runs the printed rows over time: a block of lanes goes through all steps before the next block begins, its state in
   the first-level cache. One argument each: a struct of 64-bit words that Python packs (see call.py). */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include "call.h"
#include "norm_call.h"
#include "lanes.h"
#include "memory.h"
#include "pool.h"

enum { SAME = 0, BFLOAT16 = 1, FLOAT16 = 2 }; /* element type of x and out */

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline long padded(int64_t count) { return (long)((count + 63) / 64 * 64); } /* to whole tiles */

/* Rows of scratch memory start at different places within a page, so that a store to one row never looks to the
   processor like a store to what the next load reads. */
static inline size_t row_bytes(int64_t block, size_t element) {
    return ((size_t)padded(block) * element + 191) / 64 * 64;
}

/* Aligned rows; NULL when there is no memory. */
static void *sc_rows(int64_t size) {
    void *rows = NULL;
    return posix_memalign(&rows, LINE, (size_t)size) ? NULL : rows;
}

#define real float
#define NAME(name) name##_32
#include "rows.h"
#include "driver.inc"
#include "norm.inc"
#undef NAME
#undef real

#define real double
#define NAME(name) name##_64
#include "rows.h"
#include "driver.inc"
#include "norm.inc"
#undef NAME
#undef real

int sc_has_float16(void) { return HAS_FLOAT16; }

/* Do rows write the bits of spikes? */
int sc_has_bits(void) { return HAS_BITS; }

struct copy_job {
    char *to;
    const char *from;
    int64_t size, block;
};

static void copy_block(void *argument, int64_t block) {
    struct copy_job *job = argument;
    int64_t start = block * job->block;
    stream(job->to + start, job->from + start, (size_t)least(job->block, job->size - start));
    stream_end();
}

/* Copies with streaming stores: the floor of what moving bytes costs here. */
void sc_copy(void *to, const void *from, int64_t size, int num_threads) {
    struct copy_job job = {to, from, size, 1 << 16};
    sc_share(copy_block, &job, (size + job.block - 1) / job.block, num_threads);
}
