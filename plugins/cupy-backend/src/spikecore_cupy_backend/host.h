/* Kernels as C++ on the CPU: each lane is one call. There are no shared memory, no barriers and no exchange between
   lanes, so this is the whole difference. */

/* No headers: those of the C++ library take longer to read than a kernel takes to compile. */
extern "C" {
float expf(float), logf(float), sqrtf(float), tanhf(float), sinf(float), cosf(float), atanf(float), erff(float);
float fabsf(float), floorf(float), rintf(float);
double exp(double), log(double), sqrt(double), tanh(double), sin(double), cos(double), atan(double), erf(double);
double fabs(double), floor(double), rint(double);
}

/* There are no approximate instructions here: what is built of them can be tested, their errors cannot. */
#define __expf expf
#define __fdividef(a, b) ((a) / (b))

#define SC_FUNCTION static inline
#define SC_MEMBER inline
/* A GPU stops at such an address, a CPU might not. */
#define sc_check_alignment(address, num_bytes) \
    do { if ((unsigned long long)(address) % (num_bytes)) __builtin_trap(); } while (0)
#define SC_NAN ((real)__builtin_nanf(""))
#define SC_INFINITY ((real)__builtin_inff())
#define __global__ static
#define __launch_bounds__(threads, blocks)

struct sc_index { unsigned x; };
static thread_local struct sc_index blockIdx, blockDim, threadIdx;

template <int num_bytes> struct alignas(num_bytes) sc_bytes { unsigned char at[num_bytes]; };
#define sc_store_word(to, word) (*(to) = (word))
template <int num_bytes> struct sc_word { typedef sc_bytes<num_bytes> __attribute__((may_alias)) word; };
struct sc_float16 { unsigned short bits; };
struct sc_bfloat16 { unsigned short bits; };

static inline float sc_from_bits(unsigned bits)
{
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

static inline unsigned sc_to_bits(float value)
{
    unsigned bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

SC_FUNCTION float sc_load(const sc_bfloat16 *from)
{
    return sc_from_bits((unsigned)from->bits << 16);
}

SC_FUNCTION void sc_store(sc_bfloat16 *to, float value)
{
    unsigned bits = sc_to_bits(value);
    if (value != value)
        to->bits = 0x7fff;
    else
        to->bits = (unsigned short)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16); /* halves to even */
}

SC_FUNCTION float sc_load(const sc_float16 *from)
{
    unsigned sign = (unsigned)(from->bits & 0x8000) << 16;
    unsigned rest = from->bits & 0x7fff;
    if (rest >= 0x7c00) /* infinity, NaN */
        return sc_from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    /* The product gives denormals their value. */
    return sc_from_bits(sign | sc_to_bits(sc_from_bits(rest << 13) * 0x1p112f));
}

SC_FUNCTION void sc_store(sc_float16 *to, float value)
{
    unsigned bits = sc_to_bits(value);
    unsigned short sign = (unsigned short)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    float size = sc_from_bits(bits);
    if (bits > 0x7f800000)
        to->bits = sign | 0x7fff;
    else if (size >= 65520.0f) /* rounds to infinity */
        to->bits = sign | 0x7c00;
    else if (size < 0x1p-14f) /* a denormal: the sum has its bits at the end, rounded */
        to->bits = sign | (unsigned short)(sc_to_bits(size + 0.5f) - sc_to_bits(0.5f));
    else
        to->bits = sign | (unsigned short)((bits + 0xfff + (bits >> 13 & 1) - 0x38000000) >> 13);
}
