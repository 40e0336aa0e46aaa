/* What kernels are written with. SC_REAL is float or double, the type in which a kernel computes; SC_ELEMENT is 16 for
   float16 input, 17 for bfloat16, 0 where x has the type of the state. Needs no header: conversions are PTX. */

typedef SC_REAL real;

#ifdef SC_ON_HOST
#include "host.h"
#else
#define SC_FUNCTION static __device__ __forceinline__
/* NVRTC knows neither <math.h> nor the builtins of C compilers. */
#define SC_NAN ((real)__int_as_float(0x7fffffff))
#define SC_INFINITY ((real)__int_as_float(0x7f800000))
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
SC_FUNCTION real sc_exp(real a) { return sizeof(real) == 4 ? (real)expf(a) : (real)exp((double)a); }
SC_FUNCTION real sc_log(real a) { return sizeof(real) == 4 ? (real)logf(a) : (real)log((double)a); }
SC_FUNCTION real sc_sqrt(real a) { return sizeof(real) == 4 ? (real)sqrtf(a) : (real)sqrt((double)a); }
SC_FUNCTION real sc_tanh(real a) { return sizeof(real) == 4 ? (real)tanhf(a) : (real)tanh((double)a); }
SC_FUNCTION real sc_sin(real a) { return sizeof(real) == 4 ? (real)sinf(a) : (real)sin((double)a); }
SC_FUNCTION real sc_cos(real a) { return sizeof(real) == 4 ? (real)cosf(a) : (real)cos((double)a); }
SC_FUNCTION real sc_atan(real a) { return sizeof(real) == 4 ? (real)atanf(a) : (real)atan((double)a); }
SC_FUNCTION real sc_erf(real a) { return sizeof(real) == 4 ? (real)erff(a) : (real)erf((double)a); }
SC_FUNCTION real sc_abs(real a) { return sizeof(real) == 4 ? (real)fabsf(a) : (real)fabs((double)a); }
SC_FUNCTION real sc_floor(real a) { return sizeof(real) == 4 ? (real)floorf(a) : (real)floor((double)a); }
SC_FUNCTION real sc_round(real a) { return sizeof(real) == 4 ? (real)rintf(a) : (real)rint((double)a); }
SC_FUNCTION real sc_sigmoid(real a) { return (real)1 / ((real)1 + sc_exp(-a)); }
SC_FUNCTION real sc_sign(real a) { return (real)((a > 0) - (a < 0)); }

/* NaN if one argument is; a + b is that NaN. */
SC_FUNCTION real sc_min(real a, real b) { return a != a || b != b ? a + b : (a < b ? a : b); }
SC_FUNCTION real sc_max(real a, real b) { return a != a || b != b ? a + b : (a > b ? a : b); }
SC_FUNCTION real sc_clamp(real a, real low, real high) { return sc_min(sc_max(a, low), high); }
