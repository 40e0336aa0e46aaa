/* Functions of the neuron language for double: the C library's. */

#include <math.h>

static inline double sc_sqrt(double a) { return sqrt(a); }
static inline double sc_abs(double a) { return fabs(a); }
static inline double sc_floor(double a) { return floor(a); }
static inline double sc_round(double a) { return rint(a); }
static inline double sc_sin(double a) { return sin(a); }
static inline double sc_cos(double a) { return cos(a); }
static inline double sc_exp(double a) { return exp(a); }
static inline double sc_log(double a) { return log(a); }
static inline double sc_tanh(double a) { return tanh(a); }
static inline double sc_atan(double a) { return atan(a); }
static inline double sc_erf(double a) { return erf(a); }
static inline double sc_sigmoid(double a) { return 1.0 / (1.0 + exp(-a)); }
static inline double sc_sign(double a) { return (double)((a > 0) - (a < 0)); }
static inline double sc_min(double a, double b) { return a < b || a != a ? a : b; }
static inline double sc_max(double a, double b) { return a > b || a != a ? a : b; }
// Limits are constants nearly always: then the test is gone, and each line is one instruction, which lets NaN through.
static inline double sc_clamp(double a, double low, double high) {
    if (!(low <= high)) return sc_min(sc_max(a, low), high);
    double above = low > a ? low : a;
    return high < above ? high : above;
}
