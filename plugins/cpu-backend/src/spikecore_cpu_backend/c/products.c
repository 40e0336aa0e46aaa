/* Products of spikes with weights: sums of the weights of those inputs that are 1.

   Spikes are bits: a position (a pixel, or a row of a linear layer) has `words` words of 32 channels, the first channel
   in the lowest bit. A tile of positions turns its bits into lists of channels, and slices of the weights that fit in
   the first-level cache are added up by these lists.

   Every output is summed by one thread in one order: some channels at a time from zero (32 of a convolution, with stride 2
   each column of the kernel apart; 128 of a linear map), and these sums one after the other. So bits do not depend on threads,
   tiles or the split of the batch. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "pool.h"
#ifdef __AVX__
#include <immintrin.h>
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VBMI2__)
#define WIDE 1
#else
#define WIDE 0
#endif

#define CHUNK 32 /* channels of a word */
#define LANES 16 /* outputs side by side */
#define LINE_FLOATS 16 /* of a cache line */
#define AHEAD 1024 /* floats from what is packed to what is fetched */

static void (*share)(block_function, void *, int64_t, int);
static void *(*scratch)(size_t);

void sp_prepare(void *share_function, void *scratch_function) {
    share = (void (*)(block_function, void *, int64_t, int))share_function;
    scratch = (void *(*)(size_t))scratch_function;
}

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t upto(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Floats of one register. GCC keeps wider vectors in memory, and sums of many terms take three times as long. */
#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#define REGISTERS(vecs) ((vecs) * LANES / WIDTH)

typedef float reg __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

static inline __attribute__((always_inline)) reg load(const float *from) { return *(const reg *)from; }
static inline __attribute__((always_inline)) void store(float *to, reg value) { *(reg *)to = value; }

static inline __attribute__((always_inline)) void copy_lanes(float *to, const float *from) {
    for (int i = 0; i < LANES; i += WIDTH) store(to + i, load(from + i));
}

static inline __attribute__((always_inline)) void add_lanes(float *to, const float *from, const float *shift) {
    for (int i = 0; i < LANES; i += WIDTH) store(to + i, load(from + i) + load(shift + i));
}

/* ---- Packing ---------------------------------------------------------------------------------------------------- */

struct pack_job {
    const float *x;
    uint32_t *bits;
    int64_t num_positions; /* of one image, for channels first; else of all */
    int64_t channels, words, num_images;
    int64_t block;         /* positions of a block */
    int64_t num_blocks;    /* of one image */
    int64_t num_threads;
    int64_t is_foreign;    /* result: a value other than 0 and 1 was met */
    int64_t count;         /* result: ones */
};

/* The first 32 of `count` floats, or all, as bits; `bad` gets bits where a value is neither 0 nor 1. */
static inline uint32_t pack_word(const float *x, int64_t count, uint32_t *bad) {
    uint32_t ones = 0, zeros = 0;
#if WIDE
    __mmask16 low = (__mmask16)(count >= 16 ? 0xffff : (1u << count) - 1);
    __mmask16 high = (__mmask16)(count >= 32 ? 0xffff : count > 16 ? (1u << (count - 16)) - 1 : 0);
    __m512 a = _mm512_maskz_loadu_ps(low, x), b = _mm512_maskz_loadu_ps(high, x + 16), one = _mm512_set1_ps(1.0f);
    __m512 zero = _mm512_setzero_ps();
    ones = _cvtmask16_u32(_mm512_cmp_ps_mask(a, one, _CMP_EQ_OQ)) |
           _cvtmask16_u32(_mm512_cmp_ps_mask(b, one, _CMP_EQ_OQ)) << 16;
    zeros = _cvtmask16_u32(_mm512_cmp_ps_mask(a, zero, _CMP_EQ_OQ)) |
            _cvtmask16_u32(_mm512_cmp_ps_mask(b, zero, _CMP_EQ_OQ)) << 16;
    *bad |= ~(ones | zeros);
#else
#ifdef __AVX__
    if (count >= 32) {
        const __m256 one = _mm256_set1_ps(1.0f), zero = _mm256_setzero_ps();
        for (int i = 0; i < 4; i++) {
            __m256 value = _mm256_loadu_ps(x + 8 * i);
            ones |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(value, one, _CMP_EQ_OQ)) << (8 * i);
            zeros |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(value, zero, _CMP_EQ_OQ)) << (8 * i);
        }
        *bad |= ~(ones | zeros);
        return ones;
    }
#endif
    for (int64_t i = 0; i < least(count, CHUNK); i++) {
        ones |= (uint32_t)(x[i] == 1.0f) << i;
        zeros |= (uint32_t)(x[i] == 0.0f) << i;
    }
    *bad |= ~(ones | zeros) & (count >= 32 ? ~0u : (1u << count) - 1);
#endif
    return ones;
}

/* Positions with their channels side by side. */
static void pack_rows(void *argument, int64_t block) {
    struct pack_job *job = argument;
    if (__atomic_load_n(&job->is_foreign, __ATOMIC_RELAXED)) return;
    int64_t begin = block * job->block, end = least(begin + job->block, job->num_positions), count = 0;
    uint32_t bad = 0;
    for (int64_t position = begin; position < end && !bad; position++) {
        const float *x = job->x + position * job->channels;
        uint32_t *bits = job->bits + position * job->words;
        for (int64_t word = 0; word < job->words; word++) {
            const float *ahead = x + word * CHUNK + AHEAD;
            __builtin_prefetch(ahead, 0, 3), __builtin_prefetch(ahead + LINE_FLOATS, 0, 3);
            bits[word] = pack_word(x + word * CHUNK, job->channels - word * CHUNK, &bad);
            count += __builtin_popcount(bits[word]);
        }
    }
    if (bad) __atomic_store_n(&job->is_foreign, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&job->count, count, __ATOMIC_RELAXED);
}

/* Images with one plane for each channel: 16 positions gather their channels. */
static void pack_planes(void *argument, int64_t block) {
    struct pack_job *job = argument;
    if (__atomic_load_n(&job->is_foreign, __ATOMIC_RELAXED)) return;
    int64_t image = block / job->num_blocks, begin = block % job->num_blocks * job->block;
    int64_t end = least(begin + job->block, job->num_positions), count = 0;
    const float *planes = job->x + image * job->channels * job->num_positions;
    uint32_t *bits = job->bits + image * job->num_positions * job->words;
    int is_bad = 0;
    for (int64_t word = 0; word < job->words && !is_bad; word++) {
        const float *x = planes + word * CHUNK * job->num_positions;
        int64_t channels = least(CHUNK, job->channels - word * CHUNK);
        for (int64_t position = begin; position < end; position += LANES) {
            int64_t lanes = least(LANES, end - position);
            uint32_t gathered[LANES] __attribute__((aligned(64)));
#if WIDE
            __mmask16 valid = (__mmask16)(lanes == 16 ? 0xffff : (1u << lanes) - 1), bad = 0;
            __m512i sum = _mm512_setzero_si512();
            for (int64_t c = 0; c < channels; c++) {
                __m512 value = _mm512_maskz_loadu_ps(valid, x + c * job->num_positions + position);
                __mmask16 ones = _mm512_cmp_ps_mask(value, _mm512_set1_ps(1.0f), _CMP_EQ_OQ);
                __mmask16 zeros = _mm512_cmp_ps_mask(value, _mm512_setzero_ps(), _CMP_EQ_OQ);
                bad |= (__mmask16) ~(ones | zeros);
                sum = _mm512_mask_or_epi32(sum, ones, sum, _mm512_set1_epi32((int)(1u << c)));
            }
            _mm512_store_si512(gathered, sum);
            is_bad |= bad != 0;
#else
            memset(gathered, 0, sizeof gathered);
            for (int64_t c = 0; c < channels; c++) {
                const float *from = x + c * job->num_positions + position;
                for (int64_t lane = 0; lane < lanes; lane++) {
                    gathered[lane] |= (uint32_t)(from[lane] == 1.0f) << c;
                    is_bad |= !(from[lane] == 1.0f) & !(from[lane] == 0.0f);
                }
            }
#endif
            for (int64_t lane = 0; lane < lanes; lane++) {
                bits[(position + lane) * job->words + word] = gathered[lane];
                count += __builtin_popcount(gathered[lane]);
            }
            if (is_bad) break;
        }
    }
    if (is_bad) __atomic_store_n(&job->is_foreign, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&job->count, count, __ATOMIC_RELAXED);
}

void sp_pack(struct pack_job *job, int channels_first) {
    job->is_foreign = job->count = 0;
    job->block = most(LANES, (1 << 15) / job->channels / LANES * LANES);
    job->num_blocks = upto(job->num_positions, job->block);
    if (channels_first)
        share(pack_planes, job, job->num_blocks * job->num_images, (int)job->num_threads);
    else
        share(pack_rows, job, job->num_blocks, (int)job->num_threads);
}

/* 32 words of 32 bits, turned: such as positions with a bit for each channel, and channels with one for each position. */
static inline void gather(const uint32_t *words, uint32_t *turned) {
#if WIDE
    __m512i low = _mm512_loadu_si512(words), high = _mm512_loadu_si512(words + 16);
    for (int c = 0; c < CHUNK; c++) {
        __m512i bit = _mm512_set1_epi32((int)(1u << c));
        turned[c] = _cvtmask16_u32(_mm512_test_epi32_mask(low, bit)) |
                        _cvtmask16_u32(_mm512_test_epi32_mask(high, bit)) << 16;
    }
#else
    memset(turned, 0, CHUNK * sizeof *turned);
    for (int p = 0; p < 32; p++)
        for (uint32_t bits = words[p]; bits; bits &= bits - 1) turned[__builtin_ctz(bits)] |= 1u << p;
#endif
}

/* ---- Bits in the order of memory ---------------------------------------------------------------------------------

   A neuron writes bit i for value i of its output, in whatever order the values lie. A product reads words of 32 channels
   of one position. */

struct order_job {
    const char *source;    /* with 8 bytes more than its bits */
    uint32_t *bits;        /* [images][positions][words] */
    int64_t num_positions; /* of one image; of all for rows */
    int64_t channels, words, num_images;
    int64_t num_threads;
};

/* `count` bits, up to 32, from bit `first` on. */
static inline uint32_t bits_at(const char *from, int64_t first, int64_t count) {
    uint64_t word;
    memcpy(&word, from + first / 8, sizeof word);
    return (uint32_t)(word >> first % 8) & (count >= CHUNK ? ~0u : (1u << count) - 1);
}

#define ORDERED 1024 /* positions of a block */

static void order_rows(void *argument, int64_t block) {
    const struct order_job *job = argument;
    int64_t begin = block * ORDERED, end = least(begin + ORDERED, job->num_positions);
    for (int64_t p = begin; p < end; p++)
        for (int64_t word = 0; word < job->words; word++)
            job->bits[p * job->words + word] =
                bits_at(job->source, p * job->channels + word * CHUNK, job->channels - word * CHUNK);
}

/* One image: 32 positions of 32 planes at a time. */
static void order_planes(void *argument, int64_t image) {
    const struct order_job *job = argument;
    int64_t first = image * job->channels * job->num_positions;
    uint32_t *bits = job->bits + image * job->num_positions * job->words;
    uint32_t planes[CHUNK], turned[CHUNK];
    for (int64_t word = 0; word < job->words; word++) {
        int64_t channels = least(CHUNK, job->channels - word * CHUNK);
        memset(planes, 0, sizeof planes);
        for (int64_t p = 0; p < job->num_positions; p += CHUNK) {
            int64_t count = least(CHUNK, job->num_positions - p);
            for (int64_t c = 0; c < channels; c++)
                planes[c] = bits_at(job->source, first + (word * CHUNK + c) * job->num_positions + p, count);
            gather(planes, turned);
            for (int64_t i = 0; i < count; i++) bits[(p + i) * job->words + word] = turned[i];
        }
    }
}

void sp_order(struct order_job *job, int channels_first) {
    if (channels_first)
        share(order_planes, job, job->num_images, (int)job->num_threads);
    else
        share(order_rows, job, upto(job->num_positions, ORDERED), (int)job->num_threads);
}

/* Are the bits those of x? Looks at as many words as `num_samples`, spread evenly. */
int sp_agree(const struct pack_job *job, int channels_first, int64_t num_samples) {
    int64_t num_words = job->num_positions * job->words * (channels_first ? job->num_images : 1);
    for (int64_t sample = 0; sample < num_samples; sample++) {
        int64_t index = (num_words - 1) * sample / most(1, num_samples - 1);
        int64_t position = index / job->words, word = index % job->words;
        int64_t channels = least(CHUNK, job->channels - word * CHUNK);
        uint32_t bad = 0, ones;
        if (channels_first) {
            const float *x = job->x + ((position / job->num_positions * job->channels + word * CHUNK) * job->num_positions +
                                       position % job->num_positions);
            float values[CHUNK] = {0};
            for (int64_t c = 0; c < channels; c++) values[c] = x[c * job->num_positions];
            ones = pack_word(values, CHUNK, &bad);
        } else {
            ones = pack_word(job->x + position * job->channels + word * CHUNK, channels, &bad);
        }
        if (bad || ones != job->bits[index]) return 0;
    }
    return 1;
}

/* Ones in a sample of runs of 32 floats, spread evenly; -1 where one of them is neither 0 nor 1. */
int64_t sp_sample(const float *x, int64_t count, int64_t num_runs) {
    int64_t ones = 0;
    uint32_t bad = 0;
    for (int64_t run = 0; run < num_runs; run++)
        ones += __builtin_popcount(pack_word(x + (count - CHUNK) * run / num_runs, CHUNK, &bad));
    return bad ? -1 : ones;
}

int64_t sp_count(const uint32_t *words, int64_t count) {
    int64_t ones = 0;
    for (int64_t i = 0; i < count; i++) ones += __builtin_popcount(words[i]);
    return ones;
}

/* ---- Lists ------------------------------------------------------------------------------------------------------ */

/* Appends first + b for each bit b; up to 32 entries behind the last may be overwritten. */
static inline __attribute__((always_inline)) uint16_t *append(uint16_t *list, uint32_t bits, int first) {
#if WIDE
    static const uint16_t counting[32] __attribute__((aligned(64))) = {
        0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
        16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    __m512i indices = _mm512_add_epi16(_mm512_load_si512(counting), _mm512_set1_epi16((short)first));
    _mm512_storeu_si512(list, _mm512_maskz_compress_epi16(bits, indices));
    return list + __builtin_popcount(bits);
#else
    for (; bits; bits &= bits - 1) *list++ = (uint16_t)(first + __builtin_ctz(bits));
    return list;
#endif
}

/* ---- Weights ---------------------------------------------------------------------------------------------------- */

/* 16 rows of 16 floats, turned. Clang has another name for this shuffle; it makes vectors of the plain loop. */
#if WIDTH == 16 && !defined(__clang__)
static inline __attribute__((always_inline)) void transpose(float *square) {
    typedef int32_t choice __attribute__((vector_size(64)));
    reg r[16];
#define PAIR(a, b, width)                                                                                              \
    do {                                                                                                               \
        reg low = r[a], high = r[b];                                                                                   \
        r[a] = __builtin_shuffle(low, high, first_##width);                                                            \
        r[b] = __builtin_shuffle(low, high, second_##width);                                                           \
    } while (0)
    const choice first_8 = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23};
    const choice second_8 = {8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31};
    const choice first_4 = {0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27};
    const choice second_4 = {4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31};
    const choice first_2 = {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29};
    const choice second_2 = {2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31};
    const choice first_1 = {0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30};
    const choice second_1 = {1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31};
    for (int i = 0; i < 16; i++) r[i] = load(square + i * LANES);
    for (int i = 0; i < 8; i++) PAIR(i, i + 8, 8);
    for (int i = 0; i < 16; i += 8)
        for (int j = i; j < i + 4; j++) PAIR(j, j + 4, 4);
    for (int i = 0; i < 16; i += 4)
        for (int j = i; j < i + 2; j++) PAIR(j, j + 2, 2);
    for (int i = 0; i < 16; i += 2) PAIR(i, i + 1, 1);
    for (int i = 0; i < 16; i++) store(square + i * LANES, r[i]);
#undef PAIR
}
#elif WIDTH == 8
/* 8 rows of 8 floats; rows are 16 floats apart. */
static inline __attribute__((always_inline)) void transpose_8(float *to, const float *from) {
    __m256 rows[8], pairs[8];
    for (int i = 0; i < 8; i++) rows[i] = _mm256_loadu_ps(from + LANES * i);
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            rows[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
            rows[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + LANES * i, _mm256_permute2f128_ps(rows[i], rows[i + 4], 0x20));
        _mm256_storeu_ps(to + LANES * (i + 4), _mm256_permute2f128_ps(rows[i], rows[i + 4], 0x31));
    }
}

static inline __attribute__((always_inline)) void transpose(float *square) {
    float from[16 * LANES] __attribute__((aligned(64)));
    memcpy(from, square, sizeof from);
    for (int row = 0; row < 16; row += 8)
        for (int column = 0; column < 16; column += 8)
            transpose_8(square + LANES * column + row, from + LANES * row + column);
}
#else
static inline void transpose(float *square) {
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < row; column++) {
            float kept = square[row * LANES + column];
            square[row * LANES + column] = square[column * LANES + row];
            square[column * LANES + row] = kept;
        }
}
#endif

/* `to[column * to_row + row] = from[row * from_row + column]` for up to 16 rows; rows up to `filled` become 0. */
static void turn(float *to, int64_t to_row, const float *from, int64_t from_row, int64_t num_rows, int64_t num_columns,
                 int64_t filled) {
    for (int64_t begin = 0; begin < num_columns; begin += LANES) {
        int64_t columns = least(LANES, num_columns - begin);
        if (num_rows == LANES && columns == LANES) {
            float square[16 * LANES] __attribute__((aligned(64)));
            for (int i = 0; i < 16; i++) copy_lanes(square + i * LANES, from + i * from_row + begin);
            transpose(square);
            for (int i = 0; i < 16; i++) copy_lanes(to + (begin + i) * to_row, square + i * LANES);
        } else {
            for (int64_t column = 0; column < columns; column++) {
                float *target = to + (begin + column) * to_row;
                for (int64_t row = 0; row < filled; row++)
                    target[row] = row < num_rows ? from[row * from_row + begin + column] : 0.0f;
            }
        }
    }
}

/* ---- Forward ---------------------------------------------------------------------------------------------------- */

struct product_job {
    const uint32_t *bits;   /* [images][height][width][words] */
    const float *weight;    /* [outputs][channels][kernel][kernel]; with `weight_last` the channels are the last axis */
    const float *bias;      /* [outputs], or NULL */
    float *y;
    float *slices;          /* room for the turned weights */
    int64_t num_images, height, width, channels, words;
    int64_t outputs, out_height, out_width;
    int64_t kernel, stride, padding;
    int64_t channels_first; /* y has one plane for each output */
    int64_t num_threads;
    int64_t rows;           /* of a tile */
    int64_t has_slices;     /* they were turned before */
    int64_t weight_last;
    int64_t failed;         /* result: there was no memory for a tile */
};

#ifndef CONV_VECS
#define CONV_VECS 2 /* vectors of outputs that one event of a convolution adds to, for each column */
#endif
#ifndef LINEAR_VECS
#define LINEAR_VECS 4 /* the same of a linear map */
#endif
#ifndef LINEAR_CHUNKS
#define LINEAR_CHUNKS 4 /* words of a list */
#endif

/* Weights of one chunk of 32 channels and one group of outputs: [kernel row][channel][kernel column][output], the kernel's
   columns from the last to the first, as a row of events meets them. */
static void turn_conv_slice(void *argument, int64_t index) {
    struct product_job *job = argument;
    const int64_t lanes = CONV_VECS * LANES, entry = 3 * lanes;
    int64_t group = index / job->words, word = index % job->words, channels = least(CHUNK, job->channels - word * CHUNK);
    float *slice = job->slices + index * 3 * CHUNK * entry;
    if (job->weight_last) {
        for (int vector = 0; vector < CONV_VECS; vector++) {
            int64_t output = group * lanes + vector * LANES, outputs = most(0, least(LANES, job->outputs - output));
            for (int64_t k = 0; k < 9; k++)
                turn(slice + k / 3 * CHUNK * entry + (2 - k % 3) * lanes + vector * LANES, entry,
                     job->weight + (output * 9 + k) * job->channels + word * CHUNK, 9 * job->channels, outputs, channels,
                     LANES);
        }
        return;
    }
    float turned[CHUNK * 9 * LANES] __attribute__((aligned(64)));
    for (int vector = 0; vector < CONV_VECS; vector++) {
        int64_t output = group * lanes + vector * LANES, outputs = most(0, least(LANES, job->outputs - output));
        const float *weight = job->weight + (output * job->channels + word * CHUNK) * 9;
        turn(turned, LANES, weight, job->channels * 9, outputs, channels * 9, LANES);
        for (int64_t row = 0; row < 3; row++)
            for (int64_t channel = 0; channel < channels; channel++)
                for (int64_t column = 0; column < 3; column++)
                    copy_lanes(slice + (row * CHUNK + channel) * entry + (2 - column) * lanes + vector * LANES,
                               turned + (channel * 9 + row * 3 + column) * LANES);
    }
}

/* Memory that sums will be written to, fetched while they are made: `bytes` at each position, `step` bytes apart. */
struct ahead {
    const char *at;
    int64_t step, bytes;
};

static inline __attribute__((always_inline)) void reach(struct ahead ahead, int64_t position) {
    for (int64_t b = 0; b < ahead.bytes; b += 4 * LINE_FLOATS) __builtin_prefetch(ahead.at + position * ahead.step + b, 0, 2);
}

static inline __attribute__((always_inline)) void put(float *to, reg value, int is_first) {
    if (!is_first) value += load(to);
    store(to, value);
}

/* One row of events, which holds `width` lists: sums[w], sums[w + 1], sums[w + 2] get the kernel's three columns; what was
   there counts unless these are the first. */
static inline __attribute__((always_inline)) void conv_row(const uint16_t *list, const uint32_t *starts, int64_t width,
                                                           const float *slice, float *sums, int is_first,
                                                           struct ahead ahead) {
    enum { NUM = REGISTERS(CONV_VECS), LINE = CONV_VECS * LANES };
    reg a[NUM], b[NUM], c[NUM];
    for (int v = 0; v < NUM; v++) a[v] = b[v] = (reg){0};
    for (int64_t w = 0; w < width; w++) {
        reach(ahead, w);
        for (int v = 0; v < NUM; v++) c[v] = (reg){0};
        for (uint32_t i = starts[w]; i < starts[w + 1]; i++) {
            const float *entry = slice + (size_t)list[i] * (3 * LINE);
            for (int v = 0; v < NUM; v++) a[v] += load(entry + v * WIDTH);
            for (int v = 0; v < NUM; v++) b[v] += load(entry + LINE + v * WIDTH);
            for (int v = 0; v < NUM; v++) c[v] += load(entry + 2 * LINE + v * WIDTH);
        }
        for (int v = 0; v < NUM; v++) {
            float *to = sums + w * LINE + v * WIDTH;
            put(to, a[v], is_first);
            a[v] = b[v];
            b[v] = c[v];
        }
    }
    for (int v = 0; v < NUM; v++) {
        float *to = sums + width * LINE + v * WIDTH;
        put(to, a[v], is_first);
        to += LINE;
        put(to, b[v], is_first);
    }
}

static void begin_row(const uint16_t *list, const uint32_t *starts, int64_t width, const float *slice, float *sums,
                      struct ahead ahead) {
    conv_row(list, starts, width, slice, sums, 1, ahead);
}

static void add_row(const uint16_t *list, const uint32_t *starts, int64_t width, const float *slice, float *sums,
                    struct ahead ahead) {
    conv_row(list, starts, width, slice, sums, 0, ahead);
}

/* The same for stride 2: column q = w + padding meets the kernel's columns 0 and 2 where q is even, and 1 where it is odd;
   sums[s] belongs to output column s - 1. */
static void conv_row_2(const uint16_t *list, const uint32_t *starts, int64_t width, int64_t padding, const float *slice,
                       float *sums, struct ahead ahead) {
    enum { NUM = REGISTERS(CONV_VECS), LINE = CONV_VECS * LANES };
    reg a[NUM], b[NUM], c[NUM], before[NUM];
    int64_t s = padding / 2;
    for (int v = 0; v < NUM; v++) b[v] = (reg){0};
    for (int64_t w = 0; w < width; w++) {
        int64_t q = w + padding;
        uint32_t i = starts[w];
        const uint32_t end = starts[w + 1];
        s = q / 2;
        if (q % 2 == 0) {
            for (int v = 0; v < NUM; v++) before[v] = b[v], a[v] = b[v] = (reg){0};
            reach(ahead, w / 2);
            for (; i < end; i++) {
                const float *entry = slice + (size_t)list[i] * (3 * LINE);
                for (int v = 0; v < NUM; v++) a[v] += load(entry + v * WIDTH);
                for (int v = 0; v < NUM; v++) b[v] += load(entry + 2 * LINE + v * WIDTH);
            }
            for (int v = 0; v < NUM; v++) {
                float *to = sums + s * LINE + v * WIDTH;
                store(to, load(to) + (before[v] + a[v]));
            }
        } else {
            for (int v = 0; v < NUM; v++) a[v] = c[v] = (reg){0};
            for (; i + 2 <= end; i += 2) {
                const float *entry = slice + (size_t)list[i] * (3 * LINE) + LINE;
                const float *other = slice + (size_t)list[i + 1] * (3 * LINE) + LINE;
                for (int v = 0; v < NUM; v++) a[v] += load(entry + v * WIDTH);
                for (int v = 0; v < NUM; v++) c[v] += load(other + v * WIDTH);
            }
            if (i < end) {
                const float *entry = slice + (size_t)list[i] * (3 * LINE) + LINE;
                for (int v = 0; v < NUM; v++) a[v] += load(entry + v * WIDTH);
            }
            for (int v = 0; v < NUM; v++) b[v] += a[v] + c[v];
        }
    }
    for (int v = 0; v < NUM; v++) {
        float *to = sums + (s + 1) * LINE + v * WIDTH;
        store(to, load(to) + b[v]);
    }
}

/* Sums of one group of outputs at `count` consecutive positions: `to` is y's place of the first one and output 0. */
static void finish(const struct product_job *job, const float *sums, float *to, int64_t count, int64_t group, int vecs) {
    int64_t planes = job->out_height * job->out_width;
    for (int v = 0; v < vecs; v++) {
        int64_t output = (group * vecs + v) * LANES, outputs = least(LANES, job->outputs - output);
        if (outputs <= 0) break;
        float shift[LANES] __attribute__((aligned(64))) = {0};
        if (job->bias) memcpy(shift, job->bias + output, (size_t)outputs * sizeof(float));
        const float *from = sums + v * LANES;
        const int64_t step = vecs * LANES;
        if (job->channels_first) {
            float *plane = to + output * planes;
            int64_t w = 0;
            for (; w + LANES <= count && outputs == LANES; w += LANES) {
                float square[16 * LANES] __attribute__((aligned(64)));
                for (int i = 0; i < 16; i++) add_lanes(square + i * LANES, from + (w + i) * step, shift);
                transpose(square);
                for (int i = 0; i < 16; i++) copy_lanes(plane + i * planes + w, square + i * LANES);
            }
            for (; w < count; w++)
                for (int64_t i = 0; i < outputs; i++) plane[i * planes + w] = from[w * step + i] + shift[i];
        } else if (outputs == LANES) {
            for (int64_t w = 0; w < count; w++) add_lanes(to + w * job->outputs + output, from + w * step, shift);
        } else {
            for (int64_t w = 0; w < count; w++)
                for (int64_t i = 0; i < outputs; i++) to[w * job->outputs + output + i] = from[w * step + i] + shift[i];
        }
    }
}

/* Where row r of all images begins in y. */
static float *row_of(const struct product_job *job, int64_t r) {
    int64_t width = job->out_width;
    if (!job->channels_first) return job->y + r * width * job->outputs;
    return job->y + (r / job->out_height * job->outputs * job->out_height + r % job->out_height) * width;
}

/* Where a row of outputs of one group will be written; not for planes. */
static struct ahead outputs_of(const struct product_job *job, int64_t r, int64_t group, int64_t lanes) {
    if (job->channels_first) return (struct ahead){NULL, 0, 0};
    int64_t floats = least(lanes, job->outputs - group * lanes);
    return (struct ahead){(const char *)(row_of(job, r) + group * lanes), job->outputs * 4, floats * 4};
}

static void conv_tile(void *argument, int64_t index) {
    struct product_job *job = argument;
    const int64_t lanes = CONV_VECS * LANES, slice_floats = 3 * CHUNK * 3 * lanes;
    int64_t all_rows = job->num_images * job->out_height, begin = index * job->rows;
    int64_t rows = least(job->rows, all_rows - begin), width = job->width, words = job->words;
    int64_t width_out = job->out_width;
    int64_t row_floats = (most(width, job->out_width * job->stride) + 2 * job->padding + 4) * lanes;
    size_t starts_bytes = (size_t)(words * rows * width + 16) * sizeof(uint32_t) / 64 * 64 + 64;
    size_t sums_bytes = (size_t)(rows * row_floats) * sizeof(float);
    size_t list_bytes = (size_t)(words * rows * width * 3 * CHUNK + 64) * sizeof(uint16_t);
    char *room = scratch(starts_bytes + sums_bytes + list_bytes);
    if (!room) {
        __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    float *sums = (float *)room;
    uint32_t *starts = (uint32_t *)(room + sums_bytes);
    uint16_t *lists = (uint16_t *)(room + sums_bytes + starts_bytes), *end = lists;
    uint32_t *start = starts;
    for (int64_t word = 0; word < words; word++)
        for (int64_t r = begin; r < begin + rows; r++) {
            int64_t image = r / job->out_height, top = r % job->out_height * job->stride - job->padding;
            const uint32_t *bits = job->bits + (image * job->height + top) * width * words + word;
            int from = top < 0 ? (int)-top : 0, to = (int)least(3, job->height - top);
            for (int64_t w = 0; w < width; w++) {
                *start++ = (uint32_t)(end - lists);
                for (int k = from; k < to; k++) end = append(end, bits[(k * width + w) * words], k * CHUNK);
            }
        }
    *start = (uint32_t)(end - lists);
    /* sums[w + 2 - kernel column] → output column: w + padding - column */
    int64_t shift = job->stride == 1 ? 2 - job->padding : 1;
    for (int64_t group = 0; group < upto(job->outputs, lanes); group++) {
        if (job->stride == 2) memset(sums, 0, sums_bytes);
        for (int64_t word = 0; word < words; word++) {
            const float *slice = job->slices + (group * words + word) * slice_floats;
            for (int64_t r = 0; r < rows; r++) {
                const uint32_t *own = starts + (word * rows + r) * width;
                struct ahead ahead = {NULL, 0, 0};
                if (word + 1 == words) ahead = outputs_of(job, begin + r, group, lanes);
                if (job->stride == 2)
                    conv_row_2(lists, own, width, job->padding, slice, sums + r * row_floats, ahead);
                else
                    (word ? add_row : begin_row)(lists, own, width, slice, sums + r * row_floats, ahead);
            }
        }
        for (int64_t r = 0; r < rows; r++)
            finish(job, sums + r * row_floats + shift * lanes, row_of(job, begin + r), width_out, group, CONV_VECS);
    }
}

static void turn_linear_slice(void *argument, int64_t index) {
    struct product_job *job = argument;
    const int64_t lanes = LINEAR_VECS * LANES, inputs = job->words * CHUNK;
    float *slice = job->slices + index * inputs * lanes;
    for (int vector = 0; vector < LINEAR_VECS; vector++) {
        int64_t output = index * lanes + vector * LANES, outputs = most(0, least(LANES, job->outputs - output));
        turn(slice + vector * LANES, lanes, job->weight + output * job->channels, job->channels, outputs, job->channels,
             LANES);
    }
}

/* Positions in the order of the lengths of their lists: a loop that ends after as many events as the last time is foreseen
   by the processor, and a length that is not costs as much as ten events. */
static void order_by_length(const uint32_t *starts, int64_t positions, uint16_t *order) {
    enum { LONGEST = LINEAR_CHUNKS * CHUNK };
    uint32_t place[LONGEST + 2] = {0};
    for (int64_t p = 0; p < positions; p++) place[starts[p + 1] - starts[p] + 1]++;
    for (int length = 1; length <= LONGEST; length++) place[length] += place[length - 1];
    for (int64_t p = 0; p < positions; p++) order[place[starts[p + 1] - starts[p]]++] = (uint16_t)p;
}

/* The sums of one position; what was there counts unless they are the first. */
static inline __attribute__((always_inline)) void sum_list(const uint16_t *lists, const uint32_t *starts, const float *slice,
                                                           float *sums, int64_t p, int is_first) {
    enum { NUM = REGISTERS(LINEAR_VECS), LINE = LINEAR_VECS * LANES };
    reg sum[NUM];
    for (int v = 0; v < NUM; v++) sum[v] = (reg){0};
    for (uint32_t i = starts[p]; i < starts[p + 1]; i++) {
        const float *entry = slice + (size_t)lists[i] * LINE;
        for (int v = 0; v < NUM; v++) sum[v] += load(entry + v * WIDTH);
    }
    for (int v = 0; v < NUM; v++) put(sums + p * LINE + v * WIDTH, sum[v], is_first);
}

#define IN_PAIRS (REGISTERS(LINEAR_VECS) <= 4) /* as many additions begin while one is under way as two positions have */

/* The same of two positions at once, of which q has no shorter list. */
static inline __attribute__((always_inline)) void sum_pair(const uint16_t *lists, const uint32_t *starts, const float *slice,
                                                           float *sums, int64_t p, int64_t q, int is_first) {
    enum { NUM = REGISTERS(LINEAR_VECS), LINE = LINEAR_VECS * LANES };
    const uint16_t *at = lists + starts[p], *end = lists + starts[p + 1], *other = lists + starts[q];
    const uint16_t *last = lists + starts[q + 1];
    reg sum[NUM], second[NUM];
    for (int v = 0; v < NUM; v++) sum[v] = second[v] = (reg){0};
    for (; at < end; at++, other++) {
        const float *entry = slice + (size_t)*at * LINE, *other_entry = slice + (size_t)*other * LINE;
        for (int v = 0; v < NUM; v++) sum[v] += load(entry + v * WIDTH);
        for (int v = 0; v < NUM; v++) second[v] += load(other_entry + v * WIDTH);
    }
    for (; other < last; other++) {
        const float *entry = slice + (size_t)*other * LINE;
        for (int v = 0; v < NUM; v++) second[v] += load(entry + v * WIDTH);
    }
    for (int v = 0; v < NUM; v++) put(sums + p * LINE + v * WIDTH, sum[v], is_first);
    for (int v = 0; v < NUM; v++) put(sums + q * LINE + v * WIDTH, second[v], is_first);
}

static void linear_tile(void *argument, int64_t index) {
    struct product_job *job = argument;
    const int64_t lanes = LINEAR_VECS * LANES, words = job->words, width = job->out_width;
    int64_t all_rows = job->num_images * job->out_height, begin = index * job->rows;
    int64_t rows = least(job->rows, all_rows - begin), positions = rows * width;
    int64_t lists_per_position = upto(words, LINEAR_CHUNKS);
    size_t starts_bytes = (size_t)(lists_per_position * positions + 16) * sizeof(uint32_t) / 64 * 64 + 64;
    size_t sums_bytes = (size_t)(positions * lanes) * sizeof(float);
    size_t order_bytes = (size_t)(lists_per_position * positions) * sizeof(uint16_t);
    size_t list_bytes = (size_t)(words * positions * CHUNK + 64) * sizeof(uint16_t);
    char *room = scratch(starts_bytes + sums_bytes + list_bytes + order_bytes);
    if (!room) {
        __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    float *sums = (float *)room;
    uint32_t *starts = (uint32_t *)(room + sums_bytes), *start = starts;
    uint16_t *lists = (uint16_t *)(room + sums_bytes + starts_bytes), *end = lists;
    uint16_t *orders = (uint16_t *)(room + sums_bytes + starts_bytes + list_bytes);
    for (int64_t first = 0; first < words; first += LINEAR_CHUNKS)
        for (int64_t r = begin; r < begin + rows; r++) {
            int64_t image = r / job->out_height, top = r % job->out_height * job->stride;
            const uint32_t *bits = job->bits + (image * job->height + top) * job->width * words + first;
            int count = (int)least(LINEAR_CHUNKS, words - first);
            for (int64_t w = 0; w < width; w++) {
                *start++ = (uint32_t)(end - lists);
                const uint32_t *own = bits + w * job->stride * words;
                for (int word = 0; word < count; word++) end = append(end, own[word], word * CHUNK);
            }
        }
    *start = (uint32_t)(end - lists);
    for (int64_t part = 0; IN_PAIRS && part < lists_per_position; part++)
        order_by_length(starts + part * positions, positions, orders + part * positions);
    for (int64_t group = 0; group < upto(job->outputs, lanes); group++) {
        for (int64_t part = 0; part < lists_per_position; part++) {
            const float *slice = job->slices + (group * words + part * LINEAR_CHUNKS) * CHUNK * lanes;
            const uint32_t *own = starts + part * positions;
            struct ahead ahead = {NULL, 0, 0};
            if (part + 1 == lists_per_position) ahead = outputs_of(job, begin, group, lanes);
            const uint16_t *order = orders + part * positions;
            int64_t k = 0;
            for (; IN_PAIRS && k + 2 <= positions; k += 2) {
                reach(ahead, order[k]), reach(ahead, order[k + 1]);
                sum_pair(lists, own, slice, sums, order[k], order[k + 1], !part);
            }
            for (; k < positions; k++) {
                int64_t p = IN_PAIRS ? order[k] : k;
                reach(ahead, p);
                sum_list(lists, own, slice, sums, p, !part);
            }
        }
        if (job->channels_first)
            for (int64_t r = 0; r < rows; r++)
                finish(job, sums + r * width * lanes, row_of(job, begin + r), width, group, LINEAR_VECS);
        else
            finish(job, sums, row_of(job, begin), positions, group, LINEAR_VECS);
    }
}

/* Floats of `slices`. */
int64_t sp_slice_floats(const struct product_job *job) {
    if (job->kernel == 3) {
        int64_t lanes = CONV_VECS * LANES;
        return upto(job->outputs, lanes) * job->words * 3 * CHUNK * 3 * lanes;
    }
    int64_t lanes = LINEAR_VECS * LANES;
    return upto(job->outputs, lanes) * job->words * CHUNK * lanes;
}

void sp_turn(struct product_job *job) {
    if (job->kernel == 3)
        share(turn_conv_slice, job, upto(job->outputs, CONV_VECS * LANES) * job->words, (int)job->num_threads);
    else
        share(turn_linear_slice, job, upto(job->outputs, LINEAR_VECS * LANES), (int)job->num_threads);
}

/* 1 where there was no memory. */
int sp_product(struct product_job *job) {
    job->failed = 0;
    if (!job->has_slices) sp_turn(job);
    int64_t tiles = upto(job->num_images * job->out_height, job->rows);
    share(job->kernel == 3 ? conv_tile : linear_tile, job, tiles, (int)job->num_threads);
    return (int)job->failed;
}

/* ---- Gradient of the weight ------------------------------------------------------------------------------------- */

/* Tiles of input positions, one after the other: lists of the positions at which a channel is 1, and the gradient of y
   around them for 16 outputs. Every weight's gradient is summed over the positions in their order, by one thread. */

#define CLASSES 4 /* parities of row and column, for stride 2 */
#ifndef GRAD_VECS
#define GRAD_VECS 4 /* vectors of outputs of a linear map */
#endif

struct grad_job {
    const uint32_t *bits;
    const float *grad;      /* of y */
    float *grad_weight;     /* as the weight of a product_job */
    float *sums;            /* room: [groups][channels of all words][kernel * kernel][lanes of a group] */
    uint16_t *lists;        /* room for the lists of a segment */
    int64_t num_images, height, width, channels, words;
    int64_t outputs, out_height, out_width;
    int64_t kernel, stride, padding;
    int64_t channels_first; /* grad has one plane for each output */
    int64_t num_threads;
    int64_t rows;           /* rows of a tile: input rows of a 3x3 convolution, else rows of y */
    int64_t segment;        /* tiles whose lists are held at once */
    int64_t failed;
    int64_t first_tile;     /* of the segment */
    int64_t weight_last;
};

static inline int64_t tile_positions(const struct grad_job *job) {
    return job->rows * (job->kernel == 3 ? job->width : job->out_width);
}

/* uint16 words of one list: its length, its entries, and what `append` may overwrite. */
static inline int64_t list_room(const struct grad_job *job) { return upto(tile_positions(job) + 32 + 32, 32) * 32; }

static inline int64_t num_classes(const struct grad_job *job) { return job->kernel == 3 && job->stride == 2 ? CLASSES : 1; }

static inline int64_t num_tiles(const struct grad_job *job) {
    int64_t rows = job->num_images * (job->kernel == 3 ? job->height : job->out_height);
    return upto(rows, job->rows);
}

int64_t sp_list_words(const struct grad_job *job) {
    return list_room(job) * num_classes(job) * job->words * CHUNK;
}

static inline uint16_t *list_of(const struct grad_job *job, int64_t tile, int64_t class, int64_t channel) {
    int64_t index = (tile * num_classes(job) + class) * job->words * CHUNK + channel;
    return job->lists + index * list_room(job);
}

/* Rows of the gradient's tile that one input row of a tile brings along, and its columns. */
static inline int64_t grad_columns(const struct grad_job *job) {
    return job->kernel != 3 ? job->out_width : job->stride == 1 ? job->width + 2 : (job->width + job->padding) / 2 + 2;
}

/* Every image in a tile has its own rows there, with the rows around them that its events meet: row `top` of the
   gradient stands at `place`. */
struct piece {
    int64_t image, begin, end; /* input rows */
    int64_t top, num_rows, place;
};

static int pieces_of(const struct grad_job *job, int64_t tile, struct piece *piece, int64_t *row, int64_t *place) {
    int64_t rows = job->num_images * job->height, last = least((tile + 1) * job->rows, rows);
    if (*row >= last) return 0;
    piece->image = *row / job->height;
    piece->begin = *row % job->height;
    piece->end = least(job->height, piece->begin + last - *row);
    int64_t first = piece->begin + job->padding, final = piece->end - 1 + job->padding;
    piece->top = job->stride == 1 ? first - 2 : first / 2 - 1;
    piece->num_rows = (job->stride == 1 ? final : final / 2) - piece->top + 1;
    piece->place = *place;
    *place += piece->num_rows;
    *row += piece->end - piece->begin;
    return 1;
}

/* Appends entries[b] for each bit b. */
static inline __attribute__((always_inline)) uint16_t *append_from(uint16_t *list, uint32_t bits, const uint16_t *entries) {
#if WIDE
    _mm512_storeu_si512(list, _mm512_maskz_compress_epi16(bits, _mm512_loadu_si512(entries)));
    return list + __builtin_popcount(bits);
#else
    for (; bits; bits &= bits - 1) *list++ = entries[__builtin_ctz(bits)];
    return list;
#endif
}

/* Positions that wait to be listed: 32 at a time. */
struct waiting {
    uint16_t entries[32] __attribute__((aligned(64)));
    const uint32_t *bits[32];
    uint32_t classes[CLASSES];
    int count;
};

static void flush(const struct grad_job *job, int64_t tile, struct waiting *waiting) {
    static const uint32_t nothing;
    int64_t classes = num_classes(job);
    for (int p = waiting->count; p < 32; p++) waiting->bits[p] = NULL;
    for (int64_t word = 0; word < job->words; word++) {
        uint32_t words[32] __attribute__((aligned(64))), by_channel[CHUNK];
        for (int p = 0; p < 32; p++) words[p] = waiting->bits[p] ? waiting->bits[p][word] : nothing;
        gather(words, by_channel);
        for (int64_t class = 0; class < classes; class++)
            for (int c = 0; c < CHUNK; c++) {
                uint16_t *list = list_of(job, tile, class, word * CHUNK + c);
                uint32_t bits = by_channel[c] & (classes == 1 ? ~0u : waiting->classes[class]);
                append_from(list + 32 + list[0], bits, waiting->entries);
                list[0] = (uint16_t)(list[0] + __builtin_popcount(bits));
            }
    }
    waiting->count = 0;
    memset(waiting->classes, 0, sizeof waiting->classes);
}

static inline void wait_for(const struct grad_job *job, int64_t tile, struct waiting *waiting, int64_t entry, int class,
                            const uint32_t *bits) {
    waiting->entries[waiting->count] = (uint16_t)entry;
    waiting->bits[waiting->count] = bits;
    waiting->classes[class] |= 1u << waiting->count;
    if (++waiting->count == 32) flush(job, tile, waiting);
}

static void list_tile(void *argument, int64_t index) {
    const struct grad_job *job = argument;
    struct waiting waiting = {.count = 0};
    int64_t tile = job->first_tile + index, columns = grad_columns(job);
    for (int64_t class = 0; class < num_classes(job); class++)
        for (int64_t channel = 0; channel < job->words * CHUNK; channel++) list_of(job, index, class, channel)[0] = 0;
    if (job->kernel == 3) {
        struct piece piece;
        int64_t row = tile * job->rows, place = 0;
        while (pieces_of(job, tile, &piece, &row, &place))
            for (int64_t h = piece.begin; h < piece.end; h++)
                for (int64_t w = 0; w < job->width; w++) {
                    const uint32_t *bits = job->bits + ((piece.image * job->height + h) * job->width + w) * job->words;
                    int64_t y = h + job->padding, x = w + job->padding;
                    /* The entry is the place of what meets the last kernel row and column (stride 1), or the first. */
                    if (job->stride == 1)
                        wait_for(job, index, &waiting, (piece.place + y - 2 - piece.top) * columns + w, 0, bits);
                    else
                        wait_for(job, index, &waiting, (piece.place + y / 2 - piece.top) * columns + x / 2 + 1,
                                 (int)(y % 2 * 2 + x % 2), bits);
                }
    } else {
        int64_t rows = job->num_images * job->out_height, last = least((tile + 1) * job->rows, rows), entry = 0;
        for (int64_t r = tile * job->rows; r < last; r++) {
            int64_t image = r / job->out_height, h = r % job->out_height * job->stride;
            for (int64_t w = 0; w < job->out_width; w++)
                wait_for(job, index, &waiting, entry++, 0,
                         job->bits + ((image * job->height + h) * job->width + w * job->stride) * job->words);
        }
    }
    if (waiting.count) flush(job, index, &waiting);
}

/* `count` positions of a row of the gradient, for the outputs of `vecs` vectors, side by side. */
static void fetch(const struct grad_job *job, float *to, int64_t image, int64_t row, int64_t count, int64_t group, int vecs) {
    int64_t planes = job->out_height * job->out_width;
    for (int v = 0; v < vecs; v++) {
        int64_t output = (group * vecs + v) * LANES, outputs = most(0, least(LANES, job->outputs - output));
        float *target = to + v * LANES;
        if (job->channels_first) {
            const float *from = job->grad + (image * job->outputs + output) * planes + row * job->out_width;
            turn(target, vecs * LANES, from, planes, outputs, count, LANES);
        } else {
            const float *from = job->grad + (image * planes + row * job->out_width) * job->outputs + output;
            if (outputs == LANES)
                for (int64_t w = 0; w < count; w++) copy_lanes(target + w * vecs * LANES, from + w * job->outputs);
            else
                for (int64_t w = 0; w < count; w++)
                    for (int64_t i = 0; i < LANES; i++)
                        target[w * vecs * LANES + i] = i < outputs ? from[w * job->outputs + i] : 0.0f;
        }
    }
}

static inline __attribute__((always_inline)) void add_events(float *sums, const uint16_t *list, const float *grad,
                                                             const int *at, const int64_t *behind, int num) {
    reg total[9];
    int64_t count = list[0];
    if (!count) return;
    list += 32;
    for (int begin = 0; begin < LANES; begin += WIDTH) {
        for (int i = 0; i < num; i++) total[i] = load(sums + at[i] * LANES + begin);
        for (int64_t e = 0; e < count; e++) {
            const float *entry = grad + (int64_t)list[e] * LANES + begin;
            for (int i = 0; i < num; i++) total[i] += load(entry + behind[i]);
        }
        for (int i = 0; i < num; i++) store(sums + at[i] * LANES + begin, total[i]);
    }
}

static void add_conv_1(const struct grad_job *job, float *sums, const uint16_t *list, const float *grad) {
    const int64_t line = grad_columns(job) * LANES;
    static const int at[9] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    const int64_t behind[9] = {2 * line + 32, 2 * line + 16, 2 * line, line + 32, line + 16, line, 32, 16, 0};
    add_events(sums, list, grad, at, behind, 9);
}

static void add_conv_2(const struct grad_job *job, float *sums, const uint16_t *list, int class, const float *grad) {
    const int64_t line = grad_columns(job) * LANES;
    static const int even_even[4] = {0, 2, 6, 8}, even_odd[2] = {1, 7}, odd_even[2] = {3, 5}, odd_odd[1] = {4};
    const int64_t four[4] = {0, -16, -line, -line - 16}, rows[2] = {0, -line}, columns[2] = {0, -16}, one[1] = {0};
    if (class == 0) add_events(sums, list, grad, even_even, four, 4);
    if (class == 1) add_events(sums, list, grad, even_odd, rows, 2);
    if (class == 2) add_events(sums, list, grad, odd_even, columns, 2);
    if (class == 3) add_events(sums, list, grad, odd_odd, one, 1);
}

static void add_conv_group(void *argument, int64_t group) {
    struct grad_job *job = argument;
    int64_t columns = grad_columns(job), channels = job->words * CHUNK;
    /* The most rows a tile can have: each input row may be its own image's only one. */
    size_t room = (size_t)((job->rows * 3 + 2) * columns * LANES) * sizeof(float);
    float *grad = scratch(room);
    if (!grad) {
        __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    float *sums = job->sums + group * channels * 9 * LANES;
    int64_t tiles = least(job->segment, num_tiles(job) - job->first_tile);
    for (int64_t index = 0; index < tiles; index++) {
        struct piece piece;
        int64_t tile = job->first_tile + index, row = tile * job->rows, place = 0;
        int64_t first_column = job->stride == 1 ? job->padding - 2 : -1; /* of y, at column 0 of the tile; never above 0 */
        while (pieces_of(job, tile, &piece, &row, &place))
            for (int64_t r = 0; r < piece.num_rows; r++) {
                float *line = grad + (piece.place + r) * columns * LANES;
                int64_t y = piece.top + r, before = -first_column;
                if (y < 0 || y >= job->out_height) {
                    memset(line, 0, (size_t)(columns * LANES) * sizeof(float));
                    continue;
                }
                int64_t count = least(job->out_width, columns - before);
                memset(line, 0, (size_t)(before * LANES) * sizeof(float));
                fetch(job, line + before * LANES, piece.image, y, count, group, 1);
                memset(line + (before + count) * LANES, 0, (size_t)((columns - before - count) * LANES) * sizeof(float));
            }
        for (int64_t channel = 0; channel < job->channels; channel++) {
            float *own = sums + channel * 9 * LANES;
            if (job->stride == 1)
                add_conv_1(job, own, list_of(job, index, 0, channel), grad);
            else
                for (int class = 0; class < CLASSES; class++)
                    add_conv_2(job, own, list_of(job, index, class, channel), class, grad);
        }
    }
}

static void add_linear_group(void *argument, int64_t group) {
    struct grad_job *job = argument;
    const int64_t lanes = GRAD_VECS * LANES, width = job->out_width;
    float *grad = scratch((size_t)(job->rows * width * lanes) * sizeof(float));
    if (!grad) {
        __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    float *sums = job->sums + group * job->words * CHUNK * lanes;
    int64_t tiles = least(job->segment, num_tiles(job) - job->first_tile), rows = job->num_images * job->out_height;
    for (int64_t index = 0; index < tiles; index++) {
        int64_t begin = (job->first_tile + index) * job->rows, end = least(begin + job->rows, rows);
        for (int64_t r = begin; r < end; r++)
            fetch(job, grad + (r - begin) * width * lanes, r / job->out_height, r % job->out_height, width, group,
                  GRAD_VECS);
        for (int64_t channel = 0; channel < job->channels; channel++) {
            const uint16_t *list = list_of(job, index, 0, channel);
            int64_t count = list[0];
            if (!count) continue;
            reg total[REGISTERS(GRAD_VECS)];
            float *own = sums + channel * lanes;
            for (int v = 0; v < REGISTERS(GRAD_VECS); v++) total[v] = load(own + v * WIDTH);
            for (int64_t e = 0; e < count; e++) {
                const float *entry = grad + (int64_t)list[32 + e] * lanes;
                for (int v = 0; v < REGISTERS(GRAD_VECS); v++) total[v] += load(entry + v * WIDTH);
            }
            for (int v = 0; v < REGISTERS(GRAD_VECS); v++) store(own + v * WIDTH, total[v]);
        }
    }
}

static int64_t group_lanes(const struct grad_job *job) { return job->kernel == 3 ? LANES : GRAD_VECS * LANES; }

static int64_t num_groups(const struct grad_job *job) { return upto(job->outputs, group_lanes(job)); }

/* Floats of `sums`. */
int64_t sp_sum_floats(const struct grad_job *job) {
    return num_groups(job) * job->words * CHUNK * job->kernel * job->kernel * group_lanes(job);
}

/* From [channel][kernel][output] to [output][channel][kernel] or [output][kernel][channel]. */
static void write_group(void *argument, int64_t group) {
    struct grad_job *job = argument;
    int64_t lanes = group_lanes(job), values = job->channels * job->kernel * job->kernel;
    const float *sums = job->sums + group * job->words * CHUNK * job->kernel * job->kernel * lanes;
    for (int64_t first = 0; first < lanes; first += LANES) {
        int64_t output = group * lanes + first, outputs = least(LANES, job->outputs - output);
        if (outputs <= 0) break;
        const int64_t points = job->weight_last ? job->kernel * job->kernel : 0;
        for (int64_t point = 0; point < points; point++)
            for (int64_t channel = 0; channel < job->channels; channel += LANES) {
                int64_t count = least(LANES, job->channels - channel);
                turn(job->grad_weight + output * values + point * job->channels + channel, values,
                     sums + (channel * points + point) * lanes + first, points * lanes, count, outputs, count);
            }
        if (points) continue;
        for (int64_t value = 0; value < values; value += LANES) {
            int64_t count = least(LANES, values - value);
            turn(job->grad_weight + output * values + value, values, sums + value * lanes + first, lanes, count, outputs,
                 count);
        }
    }
}

/* 1 where there was no memory. */
int sp_weight_gradient(struct grad_job *job) {
    job->failed = 0;
    memset(job->sums, 0, (size_t)sp_sum_floats(job) * sizeof(float));
    for (job->first_tile = 0; job->first_tile < num_tiles(job); job->first_tile += job->segment) {
        share(list_tile, job, least(job->segment, num_tiles(job) - job->first_tile), (int)job->num_threads);
        share(job->kernel == 3 ? add_conv_group : add_linear_group, job, num_groups(job), (int)job->num_threads);
    }
    share(write_group, job, num_groups(job), (int)job->num_threads);
    return (int)job->failed;
}
