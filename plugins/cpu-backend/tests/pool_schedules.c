/* Runs the pool's own code under chosen schedules: its threads are coroutines, and before each atomic operation, futex
   call and change of affinity any other may go on. All schedules with at most so many preemptions are tried one by one,
   then others at random. A sleep that nobody ends, a block that is done twice, not at all or for a job that is over,
   and a worker that stays bound to one core end the program with status 1.

   Sleeps of a caller that looks again later (LOOK_AGAIN_NS) never time out here: wake-ups must come without that.

   Usage: pool_schedules PREEMPTIONS RANDOM_SCHEDULES */

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define MAX_THREADS 8
#define MAX_CHOICES 4000
#define STACK 65536
#define BOTH 3 /* cores, as bits */

enum state { ABSENT, READY, ASLEEP, ENDED };

struct thread {
    ucontext_t context;
    enum state state;
    const void *word; /* it sleeps on this */
    int may_time_out, timed_out, is_caller, cores;
    void *(*function)(void *);
    void *argument;
};

static struct thread threads[MAX_THREADS];
static char stacks[MAX_THREADS][STACK];
static ucontext_t outside;
static int num_threads, current, workers_left;

/* The schedule: which of its options each decision took. */
static int choices[MAX_CHOICES], num_options[MAX_CHOICES], num_choices, num_given;
static int preemptions_left, is_random;
static uint64_t seed;

static void fail(const char *what) {
    printf("%s; schedule:", what);
    for (int i = 0; i < num_choices; i++) printf(" %d", choices[i]);
    printf("\n");
    fflush(stdout);
    _exit(1);
}

static uint64_t next_random(void) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed;
}

static int decide(int count) {
    if (count == 1) return 0;
    if (num_choices == MAX_CHOICES) fail("too many decisions: does it go round in circles?");
    int choice = 0;
    if (is_random) {
        choice = next_random() % 4 ? 0 : (int)(next_random() % (uint64_t)count);
    } else if (num_choices < num_given) {
        choice = choices[num_choices];
    }
    choices[num_choices] = choice;
    num_options[num_choices++] = count;
    return choice;
}

/* Who goes on: first the current thread, if it can, then the others. */
static void go_on(void) {
    int options[MAX_THREADS], count = 0, is_free = threads[current].state != READY;
    if (!is_free) options[count++] = current;
    for (int i = 0; i < num_threads; i++)
        if (i != current && threads[i].state == READY) options[count++] = i;
    for (int i = 0; i < num_threads; i++)
        if (threads[i].state == ASLEEP && threads[i].may_time_out) options[count++] = i;
    if (!count) fail("nobody can go on");
    int chosen = options[decide(is_free || is_random || preemptions_left ? count : 1)], before = current;
    if (!is_free && chosen != current) preemptions_left--;
    if (threads[chosen].state == ASLEEP) threads[chosen].state = READY, threads[chosen].timed_out = 1;
    current = chosen;
    if (chosen != before) swapcontext(&threads[before].context, &threads[chosen].context);
}

static void step(void) { go_on(); }

static void begin(int index) {
    threads[index].function(threads[index].argument);
    threads[index].state = ENDED;
    int is_over = 1;
    for (int i = 0; i < num_threads; i++) is_over &= !threads[i].is_caller || threads[i].state == ENDED;
    if (is_over) setcontext(&outside);
    go_on();
}

static int add_thread(void *(*function)(void *), void *argument, int is_caller) {
    if (num_threads == MAX_THREADS) fail("too many threads");
    int index = num_threads++;
    struct thread *thread = &threads[index];
    memset(thread, 0, sizeof *thread);
    thread->state = READY, thread->function = function, thread->argument = argument;
    thread->is_caller = is_caller, thread->cores = BOTH;
    getcontext(&thread->context);
    thread->context.uc_stack.ss_sp = stacks[index], thread->context.uc_stack.ss_size = STACK;
    makecontext(&thread->context, (void (*)(void))begin, 1, index);
    return index;
}

/* What the pool calls in the place of the system. */

static long futex(_Atomic uint32_t *word, int operation, uint32_t value, const struct timespec *longest);

static long system_call(long number, ...) {
    if (number != SYS_futex) return -1;
    va_list rest;
    va_start(rest, number);
    _Atomic uint32_t *word = va_arg(rest, _Atomic uint32_t *);
    int operation = va_arg(rest, int);
    uint32_t value = va_arg(rest, uint32_t);
    const struct timespec *longest = va_arg(rest, const struct timespec *);
    va_end(rest);
    return futex(word, operation, value, longest);
}

static int create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *), void *argument) {
    (void)attributes;
    step();
    if (!workers_left) return EAGAIN;
    workers_left--;
    *thread = (pthread_t)add_thread(function, argument, 0);
    return 0;
}

static int get_affinity(pthread_t thread, size_t size, cpu_set_t *cores) {
    (void)size;
    CPU_ZERO(cores);
    for (int core = 0; core < 2; core++)
        if (threads[thread].cores >> core & 1) CPU_SET(core, cores);
    return 0;
}

static int set_affinity(pthread_t thread, size_t size, const cpu_set_t *cores) {
    (void)size;
    step();
    threads[thread].cores = (CPU_ISSET(0, cores) ? 1 : 0) | (CPU_ISSET(1, cores) ? 2 : 0);
    return 0;
}

static int no_time(clockid_t clock, struct timespec *time) { /* so every worker looks as if it stood still */
    (void)clock;
    memset(time, 0, sizeof *time);
    return 0;
}

static int clock_of(pthread_t thread, clockid_t *clock) {
    (void)thread;
    *clock = 0;
    return 0;
}

static int try_lock(pthread_mutex_t *mutex) {
    step();
    return pthread_mutex_trylock(mutex);
}

static int unlock(pthread_mutex_t *mutex) {
    step();
    return pthread_mutex_unlock(mutex);
}

static int core_here(void) { return 0; }

static int no_usage(int who, struct rusage *used) {
    (void)who;
    memset(used, 0, sizeof *used);
    return 0;
}

#undef atomic_load
#undef atomic_store
#undef atomic_fetch_add
#undef atomic_fetch_sub
#undef atomic_compare_exchange_weak
#define atomic_load(at) (step(), atomic_load_explicit(at, memory_order_seq_cst))
#define atomic_store(at, value) (step(), atomic_store_explicit(at, value, memory_order_seq_cst))
#define atomic_fetch_add(at, value) (step(), atomic_fetch_add_explicit(at, value, memory_order_seq_cst))
#define atomic_fetch_sub(at, value) (step(), atomic_fetch_sub_explicit(at, value, memory_order_seq_cst))
#define atomic_compare_exchange_weak(at, expected, value) (step(), atomic_compare_exchange_strong(at, expected, value))
#define syscall system_call
#define pthread_create create
#define pthread_getaffinity_np get_affinity
#define pthread_setaffinity_np set_affinity
#define pthread_getcpuclockid clock_of
#define clock_gettime no_time
#define pthread_mutex_trylock try_lock
#define pthread_mutex_unlock unlock
#define sched_getcpu core_here
#define getrusage no_usage
#define SPINS 1
#define LONG_SPINS 1
#include POOL
#undef pthread_mutex_trylock
#undef pthread_mutex_unlock

static long futex(_Atomic uint32_t *word, int operation, uint32_t value, const struct timespec *longest) {
    step();
    if (operation == FUTEX_WAKE_PRIVATE) {
        for (int i = 0; i < num_threads; i++) {
            if (threads[i].state != ASLEEP || threads[i].word != word) continue;
            threads[i].state = READY;
            return 1;
        }
        return 0;
    }
    errno = EAGAIN;
    if (atomic_load_explicit(word, memory_order_seq_cst) != value) return -1;
    struct thread *me = &threads[current];
    me->state = ASLEEP, me->word = word, me->timed_out = 0;
    me->may_time_out = longest && longest->tv_nsec < LOOK_AGAIN_NS;
    go_on();
    errno = ETIMEDOUT;
    return me->timed_out ? -1 : 0;
}

/* What the callers do. */

#define MAX_BLOCKS 8
#define FORK (-1)

struct job {
    int is_open, num_blocks, begun[MAX_BLOCKS], ended[MAX_BLOCKS];
};

struct task {
    int num_blocks, num_threads; /* FORK: go on as the child of a fork, where only this thread is left */
};

struct scene {
    const char *name;
    struct task tasks[2][5]; /* of each caller */
    int max_workers;         /* that the system allows; 0: any number */
};

static void do_block(void *argument, int64_t block) {
    struct job *job = argument;
    if (!job->is_open) fail("a block of a job that is over");
    if (block < 0 || block >= job->num_blocks) fail("a block that there is not");
    if (job->begun[block]++) fail("a block is done twice");
    step();
    job->ended[block] = 1;
}

static void *call(void *argument) {
    static struct job jobs[2][5];
    const struct task(*tasks)[5] = argument;
    int caller = current;
    for (int i = 0; i < 5 && (*tasks)[i].num_blocks; i++) {
        if ((*tasks)[i].num_blocks == FORK) {
            step();
            for (int other = 0; other < num_threads; other++)
                if (other != current) threads[other].state = ENDED, threads[other].cores = BOTH;
            in_child();
            continue;
        }
        struct job *job = &jobs[caller][i];
        memset(job, 0, sizeof *job);
        job->is_open = 1, job->num_blocks = (*tasks)[i].num_blocks;
        sc_share(do_block, job, job->num_blocks, (*tasks)[i].num_threads);
        for (int block = 0; block < job->num_blocks; block++)
            if (!job->ended[block]) fail("a call came back before its blocks were done");
        job->is_open = 0;
    }
    return NULL;
}

static const struct scene scenes[] = {
    {"fewer threads than were asked for", {{{3, 3}, {3, 3}}}, 1},
    {"one call", {{{2, 2}}}, 0},
    {"two calls", {{{2, 2}, {2, 2}}}, 0},
    {"three calls of other sizes", {{{2, 2}, {3, 2}, {2, 2}}}, 0},
    {"another number of threads each time", {{{3, 3}, {2, 2}, {1, 2}, {3, 3}}}, 0},
    {"two callers", {{{2, 2}, {2, 2}}, {{2, 2}, {3, 3}}}, 0},
    {"a fork while another thread calls", {{{2, 2}, {3, 3}}, {{FORK, 0}, {2, 2}, {3, 3}}}, 0},
    {"a fork after a call while another thread calls", {{{2, 2}, {2, 2}}, {{2, 2}, {FORK, 0}, {3, 3}}}, 0},
    {"forks of forks", {{{2, 2}, {2, 2}}, {{FORK, 0}, {2, 2}, {FORK, 0}, {2, 2}}}, 0},
};

static void begin_anew(int preemptions, int max_workers) {
    num_threads = num_choices = current = 0;
    preemptions_left = preemptions;
    workers_left = max_workers;
    memset(workers, 0, sizeof workers);
    num_workers = 0;
    memset(shares, 0, sizeof shares);
    atomic_init(&unfinished, 0);
    atomic_init(&caller_sleeps, 0);
    pthread_mutex_init(&taken, NULL);
}

static void go(void) {
    volatile int is_over = 0;
    getcontext(&outside);
    if (!is_over) {
        is_over = 1;
        setcontext(&threads[0].context);
    }
    for (int i = 0; i < num_threads; i++)
        if (threads[i].cores != BOTH) fail("a worker stays bound to one core");
}

static void run(const struct scene *scene, int preemptions) {
    begin_anew(preemptions, scene->max_workers ? scene->max_workers : MAX_THREADS);
    for (int caller = 0; caller < 2; caller++)
        if (scene->tasks[caller][0].num_blocks) add_thread(call, (void *)&scene->tasks[caller], 1);
    go();
}

/* A caller without workers: first its own blocks from the first on, then the others' from the last on. */
static int order[5], num_ordered;

static void note(void *job, int64_t block) {
    (void)job;
    order[num_ordered++] = (int)block;
}

static void *call_alone(void *argument) {
    static const int expected[5] = {0, 1, 4, 3, 2};
    sc_share(note, argument, 5, 2);
    if (num_ordered != 5 || memcmp(order, expected, sizeof order)) fail("blocks in another order");
    return NULL;
}

/* The next schedule in order: the last decision that has another option takes it. 0: that was the last one. */
static int advance(void) {
    while (num_choices && choices[num_choices - 1] + 1 >= num_options[num_choices - 1]) num_choices--;
    if (!num_choices) return 0;
    choices[num_choices - 1]++;
    num_given = num_choices;
    return 1;
}

int main(int argc, char **argv) {
    int preemptions = argc > 1 ? atoi(argv[1]) : 2;
    long num_random = argc > 2 ? atol(argv[2]) : 10000;
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
        long count = 0;
        printf("%s: ", scenes[i].name);
        is_random = num_given = 0;
        do {
            run(&scenes[i], preemptions);
            count++;
        } while (advance());
        is_random = 1;
        seed = 88172645463325252u;
        for (long each = 0; each < num_random; each++) run(&scenes[i], 0);
        printf("%ld schedules with up to %d preemptions, %ld at random\n", count, preemptions, num_random);
        fflush(stdout);
    }
    is_random = num_given = 0;
    begin_anew(0, 0);
    add_thread(call_alone, NULL, 1);
    go();
    return 0;
}
