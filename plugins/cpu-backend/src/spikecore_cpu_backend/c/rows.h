/* What the printed rows of a neuron and the driver that calls them have in common.

   A row is one time step of a block of neurons ("lanes"). It is worked on in tiles: a tile's results are stored, or
   streamed past the caches, while the next tile's inputs are on their way, so that reads and writes of memory overlap.
   `real` is float or double; NAME gives names that differ between the two. */

#include "stream.h"

#ifndef SC_ROWS
#define SC_ROWS
#define PER_CHANNEL 1
#define LEARNABLE 2
#define TILE 64
#define ALIGNED __attribute__((aligned(64)))
enum { FORWARD, BACKWARD, KEPT };
enum { ALL, SOME, LAST }; /* gradients that arrive; LAST: that of out alone, as at the last step */

/* A row of a sequence that is written: from lane 0 on, as `real` or narrowed to 16 bits. */
struct target {
    char *at;
    void (*narrow)(const float *from, uint16_t *to, long count); /* NULL: as it is */
    int streams;                                                  /* every tile begins on a cache line */
    uint64_t *bits; /* of spikes: a word for each tile, whose bits tell which lanes are 1; NULL: not wanted */
};

/* It pays where a vector of comparisons becomes a mask in one instruction. */
#if defined(__AVX512F__) || defined(__AVX2__)
#define HAS_BITS 1
#else
#define HAS_BITS 0
#endif

/* A row that will be read later and is fetched now; NULL: none. */
struct ahead {
    const char *at;
    long lane_bytes;
};

static inline void fetch_tile(const struct ahead *row, long lane) {
    if (!row->at) return;
    const char *at = row->at + lane * row->lane_bytes, *end = at + TILE * row->lane_bytes;
    for (; at < end; at += 64) __builtin_prefetch(at, 0, 3);
}
#endif

/* Where a tile that goes to `to` is computed: in place, or in `buffer` until `end_tile`. */
static inline real *NAME(begin_tile)(const struct target *to, long lane, real *buffer) {
    return to->narrow || to->streams ? buffer : (real *)to->at + lane;
}

static inline void NAME(end_tile)(const struct target *to, long lane, const real *tile) {
    if (to->narrow) {
        uint16_t narrow[TILE] ALIGNED;
        to->narrow((const float *)tile, narrow, TILE);
        char *at = to->at + 2 * lane;
        if (to->streams)
            stream_lines(at, (const char *)narrow, sizeof narrow);
        else
            __builtin_memcpy(at, narrow, sizeof narrow);
    } else if (to->streams) {
        stream_lines(to->at + lane * (long)sizeof(real), (const char *)tile, TILE * sizeof(real));
    }
}

/* The same of a tile of zeros and ones, which are written as bits too, while they are in the nearest cache. */
static inline void NAME(end_spikes)(const struct target *to, long lane, const real *tile) {
    if (sizeof(real) == sizeof(float) && to->bits) {
#if defined(__AVX512F__)
        typedef float part __attribute__((vector_size(64)));
        typedef float source __attribute__((vector_size(64), aligned(4), may_alias));
        typedef uint16_t target __attribute__((may_alias));
        target *bits = (target *)(to->bits + lane / TILE);
        for (int i = 0; i < TILE / 16; i++) {
            part value = *(const source *)((const float *)tile + 16 * i);
            bits[i] = (uint16_t)__builtin_ia32_cmpps512_mask(value, (part){0}, 4 /* not equal */, (uint16_t)-1, 4);
        }
#elif defined(__AVX2__)
        typedef float part __attribute__((vector_size(32)));
        typedef float source __attribute__((vector_size(32), aligned(4), may_alias));
        typedef uint8_t target __attribute__((may_alias));
        target *bits = (target *)(to->bits + lane / TILE);
        for (int i = 0; i < TILE / 8; i++) {
            part value = *(const source *)((const float *)tile + 8 * i);
            bits[i] = (uint8_t)__builtin_ia32_movmskps256((part)(value != (part){0}));
        }
#endif
    }
    NAME(end_tile)(to, lane, tile);
}

/* The rows of one step. Those of `before` and `after` may be the same: every lane reads before it writes. */
struct NAME(call) {
    const real *numbers;              /* the program's */
    const real *x;                    /* or what was kept of the forward pass */
    const real *scale, *shift;        /* of rows that read x * scale + shift: a row each, or one number */
    const real *const *before, *const *params;
    real *const *after;
    const real *grad_out;
    real *const *grad_states, *const *grad_params;
    /* Of out and of each next state, for the lanes of any tile: is its gradient there? (As one number compilers would make
       a loop of it for each combination.) */
    const int *arrives[MAX_TENSORS + 1];
    struct target out, kept;          /* out: or the gradient of x */
    struct ahead ahead[2];            /* of x and of grad_out */
};

/* Lanes [lane, end), whole tiles. */
typedef void (*NAME(row_function))(const struct NAME(call) *call, long lane, long end);
typedef void (*NAME(prepare_function))(const real *numbers, const real *const *params, real *const *derived, long lane, long end);

struct NAME(program) {
    int32_t num_states, num_params, num_recorded;
    int32_t recorded[MAX_TENSORS];          /* which states */
    int32_t param_flags[MAX_TENSORS];       /* PER_CHANNEL | LEARNABLE */
    int32_t num_derived[3];                 /* rows behind those of the parameters, for FORWARD, BACKWARD, KEPT */
    NAME(prepare_function) prepare[3];      /* computes them from the parameters */
    NAME(row_function) forward;             /* out and the next states */
    NAME(row_function) advance;             /* the next states only */
    NAME(row_function) forward_keeping;     /* and what the backward pass takes in place of x; may be NULL */
    NAME(row_function) backward[3];         /* from x and the states before the step, by ALL, SOME, LAST */
    NAME(row_function) backward_kept[3];    /* from what was kept, given as x; may be NULL */
};
