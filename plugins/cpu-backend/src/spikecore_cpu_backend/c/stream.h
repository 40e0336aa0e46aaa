/* Streaming stores go past the caches: they save the read of the old line, which is worth it where the destination is
   too large to stay cached anyway. Written out, because the compilers' header for them takes as long to read as a
   kernel. */

#ifndef SC_STREAM
#define SC_STREAM
#define LINE 64

#if defined(__AVX512F__)
#define PART 64
#define STREAM "vmovntps %1, %0"
#define REGISTER "v"
#elif defined(__AVX__)
#define PART 32
#define STREAM "vmovntps %1, %0"
#define REGISTER "x"
#elif defined(__x86_64__)
#define PART 16
#define STREAM "movntps %1, %0"
#define REGISTER "x"
#endif

/* Whole lines, to the beginning of one. */
static inline __attribute__((always_inline)) void stream_lines(char *to, const char *from, long bytes) {
#if defined(PART)
    typedef float part __attribute__((vector_size(PART), may_alias));
    typedef float source __attribute__((vector_size(PART), may_alias, aligned(4)));
    for (long i = 0; i < bytes; i += PART) {
        part value = *(const source *)(from + i);
        __asm__ volatile(STREAM : "=m"(*(part *)(to + i)) : REGISTER(value));
    }
#else
    __builtin_memcpy(to, from, (size_t)bytes);
#endif
}
#endif
