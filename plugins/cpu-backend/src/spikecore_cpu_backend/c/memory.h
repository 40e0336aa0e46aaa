/* Moving whole rows: streaming stores and the 16-bit types. */

#include <stdint.h>
#include <string.h>
#include "stream.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static void stream(void *destination, const void *source, size_t bytes) {
    char *to = destination;
    const char *from = source;
    size_t head = (size_t)(-(uintptr_t)to % LINE);
    if (head > bytes) head = bytes;
    memcpy(to, from, head);
    size_t lines = (bytes - head) / LINE * LINE;
    stream_lines(to + head, from + head, (long)lines);
    memcpy(to + head + lines, from + head + lines, bytes - head - lines);
}

static void copy(void *destination, const void *source, size_t bytes) { memcpy(destination, source, bytes); }

/* Streaming stores become visible to other threads only after this. */
static inline void stream_end(void) {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

/* 16-bit types, to the nearest, halves to even, as torch rounds. */

static void widen_bfloat16(const uint16_t *from, float *to, long count) {
    for (long i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(&to[i], &bits, 4);
    }
}

static void narrow_bfloat16(const float *from, uint16_t *to, long count) {
    for (long i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &from[i], 4);
        uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        to[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
    }
}

#if defined(__F16C__)
#define HAS_FLOAT16 1
static void widen_float16(const uint16_t *from, float *to, long count) {
    long i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(from + i))));
    for (; i < count; i++) to[i] = _cvtsh_ss(from[i]);
}

static void narrow_float16(const float *from, uint16_t *to, long count) {
    long i = 0;
    for (; i + 8 <= count; i += 8)
        _mm_storeu_si128((void *)(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < count; i++) to[i] = _cvtss_sh(from[i], _MM_FROUND_TO_NEAREST_INT);
}
#elif defined(__FLT16_MAX__)
#define HAS_FLOAT16 1
static void widen_float16(const uint16_t *from, float *to, long count) {
    for (long i = 0; i < count; i++) {
        _Float16 half;
        memcpy(&half, &from[i], 2);
        to[i] = (float)half;
    }
}

static void narrow_float16(const float *from, uint16_t *to, long count) {
    for (long i = 0; i < count; i++) {
        _Float16 half = (_Float16)from[i];
        memcpy(&to[i], &half, 2);
    }
}
#else
#define HAS_FLOAT16 0
static void widen_float16(const uint16_t *from, float *to, long count) {}
static void narrow_float16(const float *from, uint16_t *to, long count) {}
#endif
