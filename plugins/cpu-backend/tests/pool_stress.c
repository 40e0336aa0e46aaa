/* Calls the pool from several threads at once, with any number of blocks and threads, and sleeps or gives the core away at
   random before atomic operations. Built with -fsanitize=thread it also shows accesses that nothing orders.

   Usage: pool_stress SECONDS CALLERS SEED; ends with status 1 where a block is not done exactly once. */

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static __thread uint64_t seed;
static uint64_t first_seed;

static uint64_t next_random(void) {
    if (!seed) seed = (first_seed + (uint64_t)syscall(SYS_gettid)) * 0x9e3779b97f4a7c15u | 1;
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed >> 8;
}

static void disturb(void) {
    uint64_t found = next_random() % 4096;
    if (found < 4) usleep((useconds_t)(next_random() % 1500));
    else if (found < 64) sched_yield();
    else if (found < 96) for (volatile int i = 0; i < 3000; i++) continue;
}

/* As if the core had been taken from this thread now and then; `told`: as often as this. */
static long told = -1;

static int usage(int who, struct rusage *used) {
    (void)who;
    memset(used, 0, sizeof *used);
    used->ru_nivcsw = told >= 0 ? told : (long)(next_random() % 3);
    return 0;
}

#undef atomic_load
#undef atomic_store
#undef atomic_fetch_add
#undef atomic_fetch_sub
#undef atomic_compare_exchange_weak
#define atomic_load(at) (disturb(), atomic_load_explicit(at, memory_order_seq_cst))
#define atomic_store(at, value) (disturb(), atomic_store_explicit(at, value, memory_order_seq_cst))
#define atomic_fetch_add(at, value) (disturb(), atomic_fetch_add_explicit(at, value, memory_order_seq_cst))
#define atomic_fetch_sub(at, value) (disturb(), atomic_fetch_sub_explicit(at, value, memory_order_seq_cst))
#define atomic_compare_exchange_weak(at, expected, value) \
    (disturb(), atomic_compare_exchange_strong(at, expected, value))
#define getrusage usage
#define SPINS 400
#define LONG_SPINS 1600
#include POOL

#define MAX_BLOCKS 40

struct job {
    int num_blocks;
    int done[MAX_BLOCKS]; /* not atomic: the pool orders what blocks write before what the caller reads */
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static double end;
static long num_calls;

static void do_block(void *argument, int64_t block) {
    struct job *job = argument;
    int *scratch = sc_scratch(64 + (size_t)(next_random() % 4096));
    scratch[0] = (int)block;
    for (volatile int i = (int)(next_random() % 4000); i > 0; i--) continue;
    if (next_random() % 512 == 0) usleep((useconds_t)(next_random() % 1000));
    job->done[scratch[0]]++;
}

static void *call(void *argument) {
    (void)argument;
    long count = 0;
    while (now() < end) {
        struct job job = {.num_blocks = (int)(next_random() % (MAX_BLOCKS + 1))};
        sc_share(do_block, &job, job.num_blocks, (int)(next_random() % 6));
        for (int block = 0; block < MAX_BLOCKS; block++) {
            if (job.done[block] == (block < job.num_blocks)) continue;
            printf("block %d of %d was done %d times\n", block, job.num_blocks, job.done[block]);
            fflush(stdout);
            _exit(1);
        }
        count++;
        if (next_random() % 64 == 0) usleep(200); /* workers fall asleep, another caller takes the pool */
    }
    __atomic_fetch_add(&num_calls, count, __ATOMIC_RELAXED);
    return NULL;
}

/* Who is left alone waits twice as long each time, who is disturbed half as long, between two bounds. */
static int check_spins(void) {
    static const int taken_away[] = {0, 0, 0, 1, 0, 1, 1, 1}, expected[] = {800, 1600, 1600, 800, 1600, 800, 400, 400};
    long interruptions = told = 0;
    int spins = SPINS;
    for (int i = 0; i < 8; i++) {
        told += taken_away[i];
        spins = spins_after(spins, &interruptions);
        if (spins != expected[i]) printf("spins %d times, expected %d\n", spins, expected[i]);
        if (spins != expected[i]) return 0;
    }
    told = -1;
    return 1;
}

int main(int argc, char **argv) {
    if (!check_spins()) return 1;
    double seconds = argc > 1 ? atof(argv[1]) : 2;
    int num_callers = argc > 2 ? atoi(argv[2]) : 2;
    first_seed = argc > 3 ? (uint64_t)atoll(argv[3]) : 1;
    pthread_t callers[16];
    end = now() + seconds;
    for (int i = 0; i < num_callers; i++) pthread_create(&callers[i], NULL, call, NULL);
    for (int i = 0; i < num_callers; i++) pthread_join(callers[i], NULL);
    printf("%ld calls, %d workers\n", num_calls, sc_num_workers());
    return num_calls == 0;
}
