/* What kernels are written with. SC_REAL is float or double, the type in which a kernel computes; SC_ELEMENT is 16 for
   float16 input, 17 for bfloat16, 0 where x has the type of the state; SC_LANES is the number of lanes of a thread, which
   stand side by side in memory; SC_FAST_EXP is 1 for approximate exp, sigmoid and tanh of float. Needs no header:
   conversions are PTX. */

typedef SC_REAL real;

#ifdef SC_ON_HOST
#include "host.h"
#else
#define SC_FUNCTION static __device__ __forceinline__
#define SC_MEMBER __device__ __forceinline__
#define sc_check_alignment(address, num_bytes)
/* NVRTC knows neither <math.h> nor the builtins of C compilers. */
#define SC_NAN ((real)__int_as_float(0x7fffffff))
#define SC_INFINITY ((real)__int_as_float(0x7f800000))
/* What is stored by this function is one instruction; an assignment of a struct may become several. */
#define sc_store_word(to, word) __stwb(to, word)
template <int num_bytes> struct sc_word;
template <> struct sc_word<4> { typedef unsigned word; };
template <> struct sc_word<8> { typedef uint2 word; };
template <> struct sc_word<16> { typedef uint4 word; };
struct sc_float16 { unsigned short bits; };
struct sc_bfloat16 { unsigned short bits; };

SC_FUNCTION float sc_load(const sc_float16 *from)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(from->bits));
    return value;
}

SC_FUNCTION float sc_load(const sc_bfloat16 *from)
{
    return __uint_as_float((unsigned)from->bits << 16);
}

SC_FUNCTION void sc_store(sc_float16 *to, float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    to->bits = bits;
}

SC_FUNCTION void sc_store(sc_bfloat16 *to, float value)
{
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    to->bits = bits;
}
#endif

SC_FUNCTION real sc_load(const real *from) { return *from; }
SC_FUNCTION void sc_store(real *to, real value) { *to = value; }

#if SC_ELEMENT == 16
typedef sc_float16 element;
#elif SC_ELEMENT == 17
typedef sc_bfloat16 element;
#else
typedef real element;
#endif

/* float and double by overloading: the names without f are double's alone in C, but not in C++. */
SC_FUNCTION real sc_log(real a) { return sizeof(real) == 4 ? (real)logf(a) : (real)log((double)a); }
SC_FUNCTION real sc_sqrt(real a) { return sizeof(real) == 4 ? (real)sqrtf(a) : (real)sqrt((double)a); }
SC_FUNCTION real sc_sin(real a) { return sizeof(real) == 4 ? (real)sinf(a) : (real)sin((double)a); }
SC_FUNCTION real sc_cos(real a) { return sizeof(real) == 4 ? (real)cosf(a) : (real)cos((double)a); }
SC_FUNCTION real sc_atan(real a) { return sizeof(real) == 4 ? (real)atanf(a) : (real)atan((double)a); }
SC_FUNCTION real sc_erf(real a) { return sizeof(real) == 4 ? (real)erff(a) : (real)erf((double)a); }
SC_FUNCTION real sc_abs(real a) { return sizeof(real) == 4 ? (real)fabsf(a) : (real)fabs((double)a); }
SC_FUNCTION real sc_floor(real a) { return sizeof(real) == 4 ? (real)floorf(a) : (real)floor((double)a); }
SC_FUNCTION real sc_round(real a) { return sizeof(real) == 4 ? (real)rintf(a) : (real)rint((double)a); }
#if SC_FAST_EXP
SC_FUNCTION real sc_exp(real a) { return __expf(a); }
SC_FUNCTION real sc_sigmoid(real a) { return __fdividef(1.0f, 1.0f + __expf(-a)); }
SC_FUNCTION real sc_tanh(real a) { return 1.0f - __fdividef(2.0f, __expf(2.0f * a) + 1.0f); }
#else
SC_FUNCTION real sc_exp(real a) { return sizeof(real) == 4 ? (real)expf(a) : (real)exp((double)a); }
SC_FUNCTION real sc_sigmoid(real a) { return (real)1 / ((real)1 + sc_exp(-a)); }
SC_FUNCTION real sc_tanh(real a) { return sizeof(real) == 4 ? (real)tanhf(a) : (real)tanh((double)a); }
#endif
SC_FUNCTION real sc_sign(real a) { return (real)((a > 0) - (a < 0)); }

/* NaN if one argument is; a + b is that NaN. */
SC_FUNCTION real sc_min(real a, real b) { return a != a || b != b ? a + b : (a < b ? a : b); }
SC_FUNCTION real sc_max(real a, real b) { return a != a || b != b ? a + b : (a > b ? a : b); }
SC_FUNCTION real sc_clamp(real a, real low, real high) { return sc_min(sc_max(a, low), high); }
SC_FUNCTION real sc_where(bool condition, real a, real b) { return condition ? a : b; }

#if SC_LANES == 1
typedef real reals;
#define SC_LOAD_LANES(type) SC_FUNCTION reals sc_load_lanes(const type *from) { return sc_load(from); }
#define SC_STORE_LANES(type) SC_FUNCTION void sc_store_lanes(type *to, reals values) { sc_store(to, values); }
#else
/* The numbers of all lanes of a thread. Every operation is that of each lane; one number stands for all lanes. */
#define SC_EACH_LANE for (int lane = 0; lane < SC_LANES; lane++)
struct reals {
    real at[SC_LANES];
    SC_MEMBER reals() {}
    SC_MEMBER reals(real a) { SC_EACH_LANE at[lane] = a; }
    SC_MEMBER void operator+=(reals a) { SC_EACH_LANE at[lane] += a.at[lane]; }
};
struct sc_truths {
    bool at[SC_LANES];
    SC_MEMBER sc_truths() {}
    SC_MEMBER sc_truths(bool a) { SC_EACH_LANE at[lane] = a; }
};

#define SC_UNARY(result, name, argument, value) \
    SC_FUNCTION result name(argument a) { result r; SC_EACH_LANE r.at[lane] = value; return r; }
#define SC_BINARY(result, name, argument, value) \
    SC_FUNCTION result name(argument a, argument b) { result r; SC_EACH_LANE r.at[lane] = value; return r; }
SC_UNARY(reals, operator-, reals, -a.at[lane])
SC_BINARY(reals, operator+, reals, a.at[lane] + b.at[lane])
SC_BINARY(reals, operator-, reals, a.at[lane] - b.at[lane])
SC_BINARY(reals, operator*, reals, a.at[lane] * b.at[lane])
SC_BINARY(reals, operator/, reals, a.at[lane] / b.at[lane])
SC_BINARY(sc_truths, operator<, reals, a.at[lane] < b.at[lane])
SC_BINARY(sc_truths, operator<=, reals, a.at[lane] <= b.at[lane])
SC_BINARY(sc_truths, operator>, reals, a.at[lane] > b.at[lane])
SC_BINARY(sc_truths, operator>=, reals, a.at[lane] >= b.at[lane])
SC_BINARY(sc_truths, operator==, reals, a.at[lane] == b.at[lane])
SC_BINARY(sc_truths, operator!=, reals, a.at[lane] != b.at[lane])
SC_UNARY(sc_truths, operator!, sc_truths, !a.at[lane])
SC_BINARY(sc_truths, operator&, sc_truths, a.at[lane] & b.at[lane])
SC_BINARY(sc_truths, operator|, sc_truths, a.at[lane] | b.at[lane])
SC_BINARY(sc_truths, operator==, sc_truths, a.at[lane] == b.at[lane])
SC_BINARY(sc_truths, operator!=, sc_truths, a.at[lane] != b.at[lane])
SC_UNARY(reals, sc_exp, reals, sc_exp(a.at[lane]))
SC_UNARY(reals, sc_log, reals, sc_log(a.at[lane]))
SC_UNARY(reals, sc_sqrt, reals, sc_sqrt(a.at[lane]))
SC_UNARY(reals, sc_tanh, reals, sc_tanh(a.at[lane]))
SC_UNARY(reals, sc_sin, reals, sc_sin(a.at[lane]))
SC_UNARY(reals, sc_cos, reals, sc_cos(a.at[lane]))
SC_UNARY(reals, sc_atan, reals, sc_atan(a.at[lane]))
SC_UNARY(reals, sc_erf, reals, sc_erf(a.at[lane]))
SC_UNARY(reals, sc_abs, reals, sc_abs(a.at[lane]))
SC_UNARY(reals, sc_floor, reals, sc_floor(a.at[lane]))
SC_UNARY(reals, sc_round, reals, sc_round(a.at[lane]))
SC_UNARY(reals, sc_sigmoid, reals, sc_sigmoid(a.at[lane]))
SC_UNARY(reals, sc_sign, reals, sc_sign(a.at[lane]))
SC_BINARY(reals, sc_min, reals, sc_min(a.at[lane], b.at[lane]))
SC_BINARY(reals, sc_max, reals, sc_max(a.at[lane], b.at[lane]))

SC_FUNCTION reals sc_clamp(reals a, reals low, reals high)
{
    return sc_min(sc_max(a, low), high);
}

SC_FUNCTION reals sc_where(sc_truths condition, reals a, reals b)
{
    reals r;
    SC_EACH_LANE r.at[lane] = condition.at[lane] ? a.at[lane] : b.at[lane];
    return r;
}

/* One load or store for all lanes: the address is a multiple of the size, see `vectors` in kernels.py. */
template <typename type> struct alignas(sizeof(type) * SC_LANES) sc_vector { type at[SC_LANES]; };
#define SC_LOAD_LANES(type) \
    SC_FUNCTION reals sc_load_lanes(const type *from) \
    { \
        sc_check_alignment(from, sizeof(sc_vector<type>)); \
        const sc_vector<type> vector = *reinterpret_cast<const sc_vector<type> *>(from); \
        reals r; \
        SC_EACH_LANE r.at[lane] = sc_load(&vector.at[lane]); \
        return r; \
    }
#define SC_STORE_LANES(type) \
    SC_FUNCTION void sc_store_lanes(type *to, reals values) \
    { \
        sc_check_alignment(to, sizeof(sc_vector<type>)); \
        sc_vector<type> vector; \
        SC_EACH_LANE sc_store(&vector.at[lane], values.at[lane]); \
        typedef sc_word<sizeof(vector)>::word word; \
        sc_store_word(reinterpret_cast<word *>(to), *reinterpret_cast<const word *>(&vector)); \
    }
#endif

SC_LOAD_LANES(real)
SC_STORE_LANES(real)
#if SC_ELEMENT
SC_LOAD_LANES(element)
SC_STORE_LANES(element)
#endif

/* A parameter of each lane's channel. */
SC_FUNCTION reals sc_load_channels(const real *from, long long lanes, long long inner, long long channels)
{
#if SC_LANES == 1
    return from[lanes / inner % channels];
#else
    reals r;
    SC_EACH_LANE r.at[lane] = from[(lanes + lane) / inner % channels];
    return r;
#endif
}
