/* Before a loop over lanes: no lane depends on another. */

#if defined(__clang__)
#define LANES _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define LANES _Pragma("GCC ivdep")
#else
#define LANES
#endif
