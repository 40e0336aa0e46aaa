/* What the printed rows of a neuron and the driver that calls them have in common.

   A row is one time step of a block of neurons ("lanes"); a call computes those in [lane, end). `real` is float or double; NAME gives names that differ
   between the two. Pointers in `before` and `after` may be equal: every lane reads before it writes. */

#ifndef SC_ROWS
#define SC_ROWS
#define MAX_TENSORS 24
#define PER_CHANNEL 1
#define LEARNABLE 2
enum { FORWARD, BACKWARD, KEPT };
#endif

typedef void (*NAME(forward_row))(const real *x, const real *const *before, real *const *after, real *out, real *kept,
                                  const real *const *params, long lane, long end);
typedef void (*NAME(backward_row))(const real *x, const real *const *before, const real *const *params,
                                   const real *grad_out, real *const *grad_states, real *grad_x,
                                   real *const *grad_params, long lane, long end);

typedef void (*NAME(prepare_row))(const real *const *params, real *const *derived, long lane, long end);

struct NAME(program) {
    int32_t num_states, num_params, num_recorded;
    int32_t recorded[MAX_TENSORS];      /* which states */
    int32_t param_flags[MAX_TENSORS];   /* PER_CHANNEL | LEARNABLE */
    int32_t num_derived[3];             /* rows behind those of the parameters, for FORWARD, BACKWARD, KEPT */
    NAME(prepare_row) prepare[3];       /* computes them from the parameters */
    NAME(forward_row) forward;          /* out and the next states */
    NAME(forward_row) advance;          /* the next states only */
    NAME(forward_row) forward_keeping;  /* and what the backward pass takes in place of x; may be NULL */
    NAME(backward_row) backward;        /* from x and the states before the step */
    NAME(backward_row) backward_kept;   /* from what was kept, given as x; may be NULL */
};
