#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "pool.h"

#define MAX_WORKERS 255
#ifndef SPINS
#define SPINS 400       /* 10 microseconds */
#define LONG_SPINS 8000 /* 200 */
#endif
#define TURN_NS 300000
#define PATIENCE_NS 60000 /* how long a caller sleeps before it looks at its workers; each time twice as long */
#define MAX_LOOKS 8       /* together 15 milliseconds */
#define LOOK_AGAIN_NS 50000000
#define MAX_MOVED 16

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

/* How the caller's processor rounds, and whether it flushes denormals: workers do as it does. */
#if defined(__x86_64__)
#include <immintrin.h>
typedef unsigned int modes;
static modes get_modes(void) { return _mm_getcsr() & ~0x3fu; } /* without the flags that operations leave */
static void set_modes(modes wanted) { _mm_setcsr(wanted); }
#elif defined(__aarch64__)
typedef uint64_t modes;
static modes get_modes(void) {
    modes found;
    __asm__ volatile("mrs %0, fpcr" : "=r"(found));
    return found;
}
static void set_modes(modes wanted) { __asm__ volatile("msr fpcr, %0" : : "r"(wanted)); }
#else
typedef int modes;
static modes get_modes(void) { return 0; }
static void set_modes(modes wanted) { (void)wanted; }
#endif

struct worker {
    _Atomic uint32_t called; /* counts the jobs this worker was woken for */
    _Atomic int asleep;
    _Atomic int has_block;
    pthread_t thread;
};

static struct worker workers[MAX_WORKERS];
static int num_workers;
static pthread_mutex_t taken = PTHREAD_MUTEX_INITIALIZER;

/* A thread's share of the open job's blocks: begin << 32 | end. Its owner takes the first, others the last. Who takes a
   block may read the job after that: it cannot end, nor another begin, before the block is done. */
struct share {
    _Alignas(64) _Atomic uint64_t blocks;
};

static struct share shares[MAX_WORKERS + 1]; /* the caller's, then one for each worker */
static _Atomic int num_shares;
static block_function current_function;
static void *current_job;
static modes current_modes;
static _Atomic uint32_t unfinished;
static _Atomic int caller_sleeps;

/* 1 where the time was over. */
static int futex_wait(_Atomic uint32_t *word, uint32_t value, const struct timespec *longest) {
    return syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, longest, NULL, 0) && errno == ETIMEDOUT;
}

static void futex_wake(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static int take(struct share *share, int is_own, int64_t *block) {
    uint64_t seen = atomic_load(&share->blocks);
    for (;;) {
        uint32_t begin = (uint32_t)(seen >> 32), end = (uint32_t)seen;
        if (begin >= end) return 0;
        *block = is_own ? begin : end - 1;
        uint64_t left = is_own ? seen + ((uint64_t)1 << 32) : seen - 1;
        if (atomic_compare_exchange_weak(&share->blocks, &seen, left)) return 1;
    }
}

/* A thread gets the same blocks in every call, as long as all keep pace: what it wrote the last time may still be in its
   core's caches. */
static void work(struct worker *me) {
    int own = me ? (int)(me - workers) + 1 : 0, count = atomic_load(&num_shares);
    for (int i = 0; i < count; i++) {
        int index = (own + i) % count;
        int64_t block;
        while (take(&shares[index], index == own, &block)) {
            if (me) {
                atomic_store(&me->has_block, 1);
                set_modes(current_modes);
            }
            current_function(current_job, block);
            if (me) atomic_store(&me->has_block, 0);
            if (atomic_fetch_sub(&unfinished, 1) == 1 && atomic_load(&caller_sleeps)) futex_wake(&unfinished);
        }
    }
}

/* Ask for short turns (Linux 6.12 and later; elsewhere refused or without effect). A thread with shorter turns may take
   the core from one with longer turns as soon as it is woken: a worker need not wait until the threads of OpenMP, which
   spin for milliseconds after each of torch's own operators, have used up theirs. */
static void prefer_short_turns(void) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {.size = sizeof attributes};
    if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) || attributes.policy != SCHED_OTHER) return;
    attributes.runtime = TURN_NS;
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}

/* How often the system took the core from this thread. */
static long num_interruptions(void) {
    struct rusage used;
    return getrusage(RUSAGE_THREAD, &used) ? 0 : used.ru_nivcsw;
}

/* How long a worker waits for the next call before it sleeps. To be woken takes 50 microseconds and more, as long as a
   small job: who is left alone waits longer each time. Who lost its core in between waits less long: a thread that spins
   is granted less of a core that others want. */
static int spins_after(int spins, long *interruptions) {
    long before = *interruptions;
    *interruptions = num_interruptions();
    int next = *interruptions == before ? 2 * spins : spins / 2;
    return next < SPINS ? SPINS : next > LONG_SPINS ? LONG_SPINS : next;
}

static void *worker_main(void *argument) {
    struct worker *me = argument;
    prefer_short_turns();
    uint32_t known = 0;
    int spins = SPINS;
    long interruptions = 0;
    for (;;) {
        spins = spins_after(spins, &interruptions);
        for (int spin = 0; spin < spins && atomic_load(&me->called) == known; spin++) RELAX();
        while (atomic_load(&me->called) == known) {
            atomic_store(&me->asleep, 1);
            if (atomic_load(&me->called) == known) futex_wait(&me->called, known, NULL);
            atomic_store(&me->asleep, 0);
        }
        known = atomic_load(&me->called);
        work(me);
    }
    return NULL;
}

static int add_worker(void) {
    pthread_attr_t attributes;
    struct worker *worker = &workers[num_workers];
    atomic_store(&worker->called, 0);
    atomic_store(&worker->asleep, 0);
    atomic_store(&worker->has_block, 0);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigset_t all, before; /* signals are for the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&worker->thread, &attributes, worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (!failed) num_workers++;
    return !failed;
}

static void alone(block_function function, void *job, int64_t num_blocks) {
    for (int64_t block = 0; block < num_blocks; block++) function(job, block);
}

/* Sleep until a worker ends the job, but not for ever: should a wake-up be lost somewhere, the caller looks again. 1 where
   the time was over. */
static int sleep_while_unfinished(long nanoseconds) {
    const struct timespec longest = {0, nanoseconds};
    uint32_t left = atomic_load(&unfinished);
    return left && futex_wait(&unfinished, left, &longest);
}

/* The processor time that a worker has had; 0 where the system does not say. */
static int64_t time_of(const struct worker *worker) {
    clockid_t clock;
    struct timespec used;
    if (pthread_getcpuclockid(worker->thread, &clock) || clock_gettime(clock, &used)) return 0;
    return used.tv_sec * (int64_t)1000000000 + used.tv_nsec;
}

struct move {
    const struct worker *worker;
    cpu_set_t before;
};

/* One more worker may run on this core only. */
static int call_here(struct move *move, const struct worker *worker, int cpu) {
    cpu_set_t here;
    CPU_ZERO(&here);
    if (cpu < 0 || cpu >= CPU_SETSIZE) return 0;
    CPU_SET(cpu, &here);
    move->worker = worker;
    if (pthread_getaffinity_np(worker->thread, sizeof move->before, &move->before)) return 0;
    return !pthread_setaffinity_np(worker->thread, sizeof here, &here);
}

/* It may go where it could before; `cpu`, where the caller goes on, it leaves at once (-1: it need not). */
static void let_go(const struct move *move, int cpu) {
    pthread_t thread = move->worker->thread;
    cpu_set_t elsewhere = move->before;
    if (cpu >= 0) CPU_CLR(cpu, &elsewhere);
    if (CPU_COUNT(&elsewhere)) pthread_setaffinity_np(thread, sizeof elsewhere, &elsewhere);
    pthread_setaffinity_np(thread, sizeof move->before, &move->before);
}

static int is_moved(const struct worker *worker, const struct move *moves, int num_moves) {
    while (num_moves--)
        if (moves[num_moves].worker == worker) return 1;
    return 0;
}

/* Wait for the blocks that workers have begun. One whose core was taken from it in the middle of a block would get it
   back when the other thread's turn is over, after milliseconds: it is called to this core, which is about to be free.
   One that runs stays where it is: all of them here would run one after the other. And nobody is held here for long,
   since other threads may want this core too. */
static void wait_for_workers(void) {
    int64_t used[MAX_WORKERS];
    struct move moves[MAX_MOVED];
    int num_moves = 0, cpu = -1;
    for (int spin = 0; spin < SPINS && atomic_load(&unfinished); spin++) RELAX();
    if (!atomic_load(&unfinished)) return;
    atomic_store(&caller_sleeps, 1);
    for (int look = 0; look < MAX_LOOKS; look++) {
        long patience = PATIENCE_NS << look;
        for (int i = 0; i < num_workers; i++) used[i] = atomic_load(&workers[i].has_block) ? time_of(&workers[i]) : 0;
        int is_over = sleep_while_unfinished(patience);
        if (!atomic_load(&unfinished)) break;
        if (!is_over) continue;
        if (!num_moves) cpu = sched_getcpu();
        for (int i = 0; i < num_workers && num_moves < MAX_MOVED; i++) {
            const struct worker *worker = &workers[i];
            if (!atomic_load(&worker->has_block) || is_moved(worker, moves, num_moves)) continue;
            if (time_of(worker) - used[i] < patience / 2) num_moves += call_here(&moves[num_moves], worker, cpu);
        }
    }
    if (atomic_load(&unfinished)) {
        while (num_moves) let_go(&moves[--num_moves], -1);
        while (atomic_load(&unfinished)) sleep_while_unfinished(LOOK_AGAIN_NS);
    }
    atomic_store(&caller_sleeps, 0);
    while (num_moves) let_go(&moves[--num_moves], cpu);
}

void sc_share(block_function function, void *job, int64_t num_blocks, int num_threads) {
    if (num_threads > num_blocks) num_threads = (int)num_blocks;
    if (num_threads > MAX_WORKERS + 1) num_threads = MAX_WORKERS + 1;
    if (num_threads <= 1 || num_blocks > INT_MAX || pthread_mutex_trylock(&taken)) {
        alone(function, job, num_blocks);
        return;
    }
    while (num_workers < num_threads - 1 && add_worker()) {
    }
    current_function = function;
    current_job = job;
    current_modes = get_modes();
    atomic_store(&unfinished, (uint32_t)num_blocks);
    atomic_store(&num_shares, num_threads);
    for (int i = 0; i < num_threads; i++) {
        uint64_t begin = (uint64_t)(num_blocks * i / num_threads), end = (uint64_t)(num_blocks * (i + 1) / num_threads);
        atomic_store(&shares[i].blocks, begin << 32 | end);
    }
    for (int index = 0; index < num_threads - 1 && index < num_workers; index++) {
        atomic_fetch_add(&workers[index].called, 1);
        if (atomic_load(&workers[index].asleep)) futex_wake(&workers[index].called);
    }
    work(NULL);
    wait_for_workers();
    pthread_mutex_unlock(&taken);
}

/* Scratch memory, one region for each thread, freed with the thread. */

static pthread_key_t scratch_key;
static __thread char *scratch;
static __thread size_t scratch_size;

void *sc_scratch(size_t size) {
    if (size > scratch_size) {
        free(scratch);
        scratch = NULL;
        scratch_size = 0;
        pthread_setspecific(scratch_key, NULL); /* should there be no more memory, the end of the thread frees nothing */
        if (posix_memalign((void **)&scratch, 64, size)) scratch = NULL;
        if (!scratch) return NULL;
        scratch_size = size;
        pthread_setspecific(scratch_key, scratch);
    }
    return scratch;
}

void sc_free_scratch(void) {
    free(scratch);
    scratch = NULL;
    scratch_size = 0;
    pthread_setspecific(scratch_key, NULL);
}

/* A child process has the caller's thread alone: it starts with an empty pool. */
static void in_child(void) {
    num_workers = 0;
    for (int i = 0; i <= MAX_WORKERS; i++) atomic_store(&shares[i].blocks, 0);
    atomic_store(&unfinished, 0);
    atomic_store(&caller_sleeps, 0);
    pthread_mutex_init(&taken, NULL);
}

__attribute__((constructor)) static void prepare(void) {
    pthread_key_create(&scratch_key, free);
    pthread_atfork(NULL, NULL, in_child);
}

int sc_num_workers(void) { return num_workers; }
