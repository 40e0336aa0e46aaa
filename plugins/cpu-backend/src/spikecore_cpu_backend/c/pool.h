/* Threads that share the blocks of one job. The caller claims blocks like any worker and at the end waits only for
   blocks that are being worked on, so that a machine with busy cores loses nothing but the help.

   One job at a time: a second caller finds the pool taken and does its blocks alone. Sums do not depend on who does
   what: a block's result is the same wherever it runs. */

#ifndef SC_POOL
#define SC_POOL
typedef void (*block_function)(void *job, int64_t block);

/* Call `function(job, b)` for each b in [0, num_blocks), on up to num_threads threads, the caller among them. */
void sc_share(block_function function, void *job, int64_t num_blocks, int num_threads);

/* At least `size` bytes for the calling thread, aligned to 64, until its next call. NULL when there is no memory. */
void *sc_scratch(size_t size);
#endif
