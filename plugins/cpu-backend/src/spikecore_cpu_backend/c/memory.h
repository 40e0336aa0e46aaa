/* Moving rows: streaming stores, prefetches, and the 16-bit types.

   A streaming store goes past the caches: it saves the read of the old line, which is worth it where the destination is
   too large to stay cached anyway. */

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define LINE 64

static inline void prefetch(const void *start, size_t bytes) {
    const char *at = start, *end = at + bytes;
    __asm__ volatile(""); /* gcc takes a function that does nothing but prefetch for one that does nothing */
    for (; at < end; at += LINE) __builtin_prefetch(at, 0, 3);
}

static void stream(void *destination, const void *source, size_t bytes) {
#if defined(__x86_64__)
    char *to = destination;
    const char *from = source;
    size_t head = (size_t)(-(uintptr_t)to % LINE);
    if (head > bytes) head = bytes;
    memcpy(to, from, head);
    to += head, from += head, bytes -= head;
    for (; bytes >= LINE; bytes -= LINE, to += LINE, from += LINE) {
#if defined(__AVX512F__)
        _mm512_stream_si512((void *)to, _mm512_loadu_si512(from));
#elif defined(__AVX__)
        __m256i low = _mm256_loadu_si256((const void *)from), high = _mm256_loadu_si256((const void *)(from + 32));
        _mm256_stream_si256((void *)to, low);
        _mm256_stream_si256((void *)(to + 32), high);
#else
        for (int part = 0; part < LINE; part += 16)
            _mm_stream_si128((void *)(to + part), _mm_loadu_si128((const void *)(from + part)));
#endif
    }
    memcpy(to, from, bytes);
#else
    memcpy(destination, source, bytes);
#endif
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
