/* Functions of the neuron language for float, without branches or calls, so that loops over them become vector code.
   Each has the form: range reduction, a minimax polynomial (fitted with the Remez algorithm), reconstruction. Errors
   stay below 2 units in the last place; NaN, infinities and denormals come out as in the C library. Sine and cosine are the
   library's own, since a reduction that holds for every float would need a branch. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define MULTIPLY_ADD(a, b, c) __builtin_fmaf(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

static inline uint32_t sc_bits(float a) {
    uint32_t bits;
    memcpy(&bits, &a, sizeof bits);
    return bits;
}

static inline float sc_float(uint32_t bits) {
    float a;
    memcpy(&a, &bits, sizeof a);
    return a;
}

static inline float sc_sqrt(float a) { return sqrtf(a); }
static inline float sc_abs(float a) { return fabsf(a); }
static inline float sc_floor(float a) { return floorf(a); }
static inline float sc_round(float a) { return rintf(a); }
static inline float sc_sin(float a) { return sinf(a); }
static inline float sc_cos(float a) { return cosf(a); }
static inline float sc_copysign(float a, float b) {
    return sc_float((sc_bits(a) & 0x7fffffff) | (sc_bits(b) & 0x80000000));
}

static inline float sc_exp(float a) {
    const float log2e = 0x1.715476p+0f, ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
    float limited = a < -104.0f ? -104.0f : a;
    limited = limited > 89.0f ? 89.0f : limited;
    float n = rintf(limited * log2e);
    float r = limited - n * ln2_high; /* exact: the product has few digits */
    r = r - n * ln2_low;
    float p = 0x1.6dc4d2p-10f;
    p = MULTIPLY_ADD(p, r, 0x1.124758p-7f);
    p = MULTIPLY_ADD(p, r, 0x1.55544ap-5f);
    p = MULTIPLY_ADD(p, r, 0x1.55547ep-3f);
    p = MULTIPLY_ADD(p, r, 0.5f);
    p = MULTIPLY_ADD(p, r * r, r) + 1.0f;
    n = n == n ? n : 0.0f;
    int32_t whole = (int32_t)n, half = whole >> 1; /* 2^n in two factors, which reaches the denormals */
    return p * sc_float((uint32_t)(half + 127) << 23) * sc_float((uint32_t)(whole - half + 127) << 23);
}

static inline float sc_sigmoid(float a) { return 1.0f / (1.0f + sc_exp(-a)); }

static inline float sc_tanh(float a) {
    float size = fabsf(a), z = a * a;
    float p = 0x1.163b8ap-9f;
    p = MULTIPLY_ADD(p, z, -0x1.0b43d8p-7f);
    p = MULTIPLY_ADD(p, z, 0x1.636964p-6f);
    p = MULTIPLY_ADD(p, z, -0x1.b9eba8p-5f);
    p = MULTIPLY_ADD(p, z, 0x1.111058p-3f);
    p = MULTIPLY_ADD(p, z, -0x1.555554p-2f);
    float small = MULTIPLY_ADD(p * z, a, a);
    float large = 1.0f - 2.0f / (sc_exp(2.0f * size) + 1.0f);
    return sc_copysign(size < 0.625f ? small : large, a); /* NaN takes the large branch and stays NaN */
}

static inline float sc_log(float a) {
    int is_small = a < 0x1p-126f;
    float scaled = is_small ? a * 0x1p+25f : a;
    int32_t bits = (int32_t)sc_bits(scaled);
    int32_t exponent = (bits - 0x3f3504f3) >> 23; /* the rest lies between sqrt(1/2) and sqrt(2) */
    float f = sc_float((uint32_t)(bits - (int32_t)((uint32_t)exponent << 23))) - 1.0f;
    float s = f / (2.0f + f), z = s * s;
    float p = 0x1.2ef160p-2f;
    p = MULTIPLY_ADD(p, z, 0x1.997be6p-2f);
    p = MULTIPLY_ADD(p, z, 0x1.55555cp-1f);
    float n = (float)(exponent - (is_small ? 25 : 0));
    float part = s * (f - p * z) - n * 0x1.7f7d1cp-20f; /* log(1 + f) = f - s (f - z p) */
    float value = n * 0x1.62e4p-1f + (f - part);
    value = a == 0.0f ? -INFINITY : value;
    value = a < 0.0f ? NAN : value;
    return a < INFINITY ? value : a; /* +inf and NaN */
}

static inline float sc_atan(float a) {
    float size = fabsf(a);
    int is_large = size > 2.41421356f, is_middle = size > 0.41421356f;
    float above = is_large ? -1.0f : is_middle ? size - 1.0f : size;
    float below = is_large ? size : is_middle ? size + 1.0f : 1.0f;
    float base = is_large ? 0x1.921fb6p+0f : is_middle ? 0x1.921fb6p-1f : 0.0f;
    float rest = is_large ? -0x1.777a5cp-25f : is_middle ? -0x1.777a5cp-26f : 0.0f;
    float t = above / below, z = t * t;
    float p = -0x1.f253a0p-5f;
    p = MULTIPLY_ADD(p, z, 0x1.b201b2p-4f);
    p = MULTIPLY_ADD(p, z, -0x1.23b6b2p-3f);
    p = MULTIPLY_ADD(p, z, 0x1.9991acp-3f);
    p = MULTIPLY_ADD(p, z, -0x1.55554ap-2f);
    return sc_copysign(base + (MULTIPLY_ADD(p * z, t, t) + rest), a);
}

static inline float sc_erf(float a) {
    float size = fabsf(a), z = a * a;
    float p = -0x1.44cfbep-17f;
    p = MULTIPLY_ADD(p, z, 0x1.d8b88ep-14f);
    p = MULTIPLY_ADD(p, z, -0x1.bcd7dep-11f);
    p = MULTIPLY_ADD(p, z, 0x1.562b1ap-8f);
    p = MULTIPLY_ADD(p, z, -0x1.b829d8p-6f);
    p = MULTIPLY_ADD(p, z, 0x1.ce2f0ap-4f);
    p = MULTIPLY_ADD(p, z, -0x1.812746p-2f);
    p = MULTIPLY_ADD(p, z, 0x1.06eba8p-3f);
    float small = MULTIPLY_ADD(p, a, a);
    float limited = size > 4.0f ? 4.0f : size;
    float q = 0x1.0dd5b2p-22f; /* log erfc */
    q = MULTIPLY_ADD(q, limited, -0x1.a8b4dep-16f);
    q = MULTIPLY_ADD(q, limited, 0x1.e650a0p-12f);
    q = MULTIPLY_ADD(q, limited, -0x1.18a65ap-8f);
    q = MULTIPLY_ADD(q, limited, 0x1.9fb85ap-6f);
    q = MULTIPLY_ADD(q, limited, -0x1.bcfc3ap-4f);
    q = MULTIPLY_ADD(q, limited, -0x1.441dc6p-1f);
    q = MULTIPLY_ADD(q, limited, -0x1.21317ap+0f);
    q = MULTIPLY_ADD(q, limited, 0x1.ac9240p-13f);
    float large = sc_copysign(1.0f - sc_exp(q), a);
    return size < 1.0f ? small : large;
}

static inline float sc_sign(float a) { return (float)((a > 0) - (a < 0)); }
static inline float sc_min(float a, float b) { return a < b || a != a ? a : b; }
static inline float sc_max(float a, float b) { return a > b || a != a ? a : b; }
// Limits are constants nearly always: then the test is gone, and each line is one instruction, which lets NaN through.
static inline float sc_clamp(float a, float low, float high) {
    if (!(low <= high)) return sc_min(sc_max(a, low), high);
    float above = low > a ? low : a;
    return high < above ? high : above;
}
