// Runs the blocks and threads of CUDA on a CPU, for tests (cuda_on_cpu.h has CUDA's words for it).
//
// The threads of a block are fibers of one thread of the operating system, so __shared__ can be
// thread_local. A fiber runs until it has to wait for others: at a barrier, a shuffle, a vote, or
// the count of blocks. The caller chooses the order in which fibers take turns; no result may depend
// on it. Fibers that wait in vain, or at different operations of one warp, are an error.
//
// For ThreadSanitizer each fiber is a thread, and only what CUDA promises orders their accesses:
// __syncthreads and __syncwarp, but no shuffle and no vote; and a release that an acquire sees.
#pragma once

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include <cmath>
#include <type_traits>
#include <utility>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#elif defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
// What ThreadSanitizer must not see: the emulator's own memory.
#define EMULATOR __attribute__((no_sanitize("thread"), noinline))

namespace emulator {

constexpr unsigned LANES = 32;
constexpr size_t STACK = 256 << 10;
constexpr size_t SHARED = 227 << 10;  // of a block, on the largest device
constexpr int PATIENCE = 30;  // seconds

struct Index {
    unsigned x = 1, y = 1, z = 1;
    unsigned size() const { return x * y * z; }
    Index at(unsigned k) const { return {k % x, k / x % y, k / (x * y)}; }
};

enum class Wait : char { NOTHING, SPINS, WARP, BLOCK, END };

struct Fiber {
    ucontext_t start;
    jmp_buf place;
    void* sanitizer;
    const char* operation;  // of its warp
    Index index;
    bool started;
};

struct Warp {
    uint64_t slots[2][LANES];  // in turn: a lane may be one operation ahead of another
    unsigned arrived, operations;
    char order[2];  // only addresses, by which ThreadSanitizer knows them
};

struct Block {
    Fiber* fibers;
    Wait* waits;  // of each fiber
    Warp* warps;
    unsigned size, current, arrived, ended, barriers;
    char order[2], start_order, end_order;
    ucontext_t start;
    jmp_buf place;
    void* sanitizer;
    void (*kernel)(void**);
    void** arguments;
};

inline const char* failure;  // of any block of this launch
inline thread_local Block* block;

inline void fail(const char* message) {
    __atomic_store_n(&failure, message, __ATOMIC_SEQ_CST);
}

inline const char* failed() {
    return __atomic_load_n(&failure, __ATOMIC_SEQ_CST);
}

}  // namespace emulator

inline thread_local emulator::Index threadIdx, blockIdx, blockDim, gridDim;
alignas(16) inline thread_local double memory[emulator::SHARED / sizeof(double)];

namespace emulator {

EMULATOR inline void release(char* order) {
#if defined(__SANITIZE_THREAD__)
    __tsan_release(order);
#endif
}

EMULATOR inline void acquire(char* order) {
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(order);
#endif
}

EMULATOR inline void resume(unsigned number) {
    Fiber& fiber = block->fibers[number];
    block->current = number;
    threadIdx = fiber.index;
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(fiber.sanitizer, __tsan_switch_to_fiber_no_sync);
    swapcontext(&block->start, &fiber.start);
#else
    if (_setjmp(block->place)) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    setcontext(&fiber.start);
#endif
}

// Lets others run until what this fiber waits for has happened.
EMULATOR inline void wait_for(Wait wait) {
    Fiber& fiber = block->fibers[block->current];
    block->waits[block->current] = wait;
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(block->sanitizer, __tsan_switch_to_fiber_no_sync);
    swapcontext(&fiber.start, &block->start);
#else
    if (_setjmp(fiber.place) == 0) _longjmp(block->place, 1);
#endif
}

// Passes the barrier if all are there; those that have ended are not waited for.
EMULATOR inline void release_block() {
    if (block->arrived == 0 || block->arrived + block->ended < block->size) return;
    block->arrived = 0;
    ++block->barriers;
    for (unsigned k = 0; k < block->size; ++k) {
        if (block->waits[k] == Wait::BLOCK) block->waits[k] = Wait::NOTHING;
    }
}

EMULATOR inline void run_fiber() {
    acquire(&block->start_order);
    block->kernel(block->arguments);
    release(&block->end_order);
    wait_for(Wait::END);
}

EMULATOR inline void meet_block() {
    char* order = &block->order[block->barriers % 2];
    release(order);
    ++block->arrived;
    wait_for(Wait::BLOCK);
    acquire(order);
}

EMULATOR inline void meet_warp(const char* operation) {
    Warp& warp = block->warps[block->current / LANES];
    const unsigned first = block->current / LANES * LANES;
    block->fibers[block->current].operation = operation;
    if (++warp.arrived < LANES) return wait_for(Wait::WARP);
    for (unsigned k = first; k < first + LANES; ++k) {
        if (block->fibers[k].operation != operation) {
            fail("lanes of a warp wait at different operations");
        }
        block->waits[k] = Wait::NOTHING;
    }
    warp.arrived = 0;
    ++warp.operations;
}

// Shows a value to the other lanes, and returns what all have shown.
EMULATOR inline const uint64_t* show(const char* operation, unsigned mask, uint64_t bits) {
    if (mask != 0xffffffffu) fail("a warp's operation without all lanes");
    Warp& warp = block->warps[block->current / LANES];
    uint64_t* slots = warp.slots[warp.operations % 2];
    slots[block->current % LANES] = bits;
    meet_warp(operation);
    return slots;
}

template <typename T>
EMULATOR T shuffle(const char* operation, unsigned mask, T value, unsigned source) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    bits = show(operation, mask, bits)[source % LANES];
    memcpy(&value, &bits, sizeof(T));
    return value;
}

// Runs a block to its end. Order 0 takes its threads as they are numbered, 1 the other way round,
// with any other number each turn starts somewhere else and goes by another step.
EMULATOR inline void run_block(unsigned order) {
    const unsigned size = block->size, steps[] = {5, 7, 11, 13, 17, 19, 23, 29};
    unsigned first = order == 1 ? size - 1 : 0, step = order == 1 ? size - 1 : 1;
    const time_t start = time(nullptr);
    while (block->ended < size && !failed()) {
        if (order > 1) {
            order = order * 1664525u + 1013904223u | 2u;
            first = (order >> 8) % size;
            step = steps[order >> 29];
        }
        bool ran = false, spins = false;
        for (unsigned n = 0, k = first; n < size; ++n, k = (k + step) % size) {
            if (block->waits[k] != Wait::NOTHING && block->waits[k] != Wait::SPINS) continue;
            resume(k);
            (block->waits[k] == Wait::SPINS ? spins : ran) = true;
            if (block->waits[k] == Wait::END) ++block->ended;
            release_block();
        }
        if (!ran && !spins) fail("threads of a block wait in vain");
        if (!ran && time(nullptr) > start + PATIENCE) fail("blocks wait in vain");
        if (!ran) sched_yield();
    }
}

struct Launch {
    Index grid, threads;
    size_t shared;
    unsigned order;
    void (*kernel)(void**);
    void** arguments;
    unsigned workers;
};

struct Worker {
    const Launch* launch;
    unsigned first;
    pthread_t thread;
};

// Runs every so many blocks from the first on this thread of the operating system.
EMULATOR inline void* run_blocks(void* argument) {
    const Worker& worker = *static_cast<const Worker*>(argument);
    const Launch& launch = *worker.launch;
    const unsigned size = launch.threads.size(), warps = size / LANES;
    char* stacks = static_cast<char*>(mmap(nullptr, size * STACK, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    Block own{};
    own.fibers = static_cast<Fiber*>(calloc(size, sizeof(Fiber)));
    own.warps = static_cast<Warp*>(calloc(warps, sizeof(Warp)));
    own.waits = static_cast<Wait*>(calloc(size, sizeof(Wait)));
    own.size = size;
    own.kernel = launch.kernel;
    own.arguments = launch.arguments;
#if defined(__SANITIZE_THREAD__)
    own.sanitizer = __tsan_get_current_fiber();
    for (unsigned k = 0; k < size; ++k) own.fibers[k].sanitizer = __tsan_create_fiber(0);
#endif
    block = &own;
    gridDim = launch.grid;
    blockDim = launch.threads;
    for (unsigned number = worker.first; number < launch.grid.size() && !failed();
         number += launch.workers) {
        blockIdx = launch.grid.at(number);
        own.arrived = own.ended = own.barriers = 0;
        memset(own.warps, 0, warps * sizeof(Warp));
        memset(memory, 0xff, sizeof(memory));  // NaN, where nothing has been written
        for (unsigned k = 0; k < size; ++k) {
            Fiber& fiber = own.fibers[k];
            fiber.index = launch.threads.at(k);
            fiber.started = false;
            own.waits[k] = Wait::NOTHING;
            getcontext(&fiber.start);
            fiber.start.uc_stack.ss_sp = stacks + k * STACK;
            fiber.start.uc_stack.ss_size = STACK;
            fiber.start.uc_link = nullptr;
            makecontext(&fiber.start, run_fiber, 0);
        }
#if defined(__SANITIZE_ADDRESS__)
        char* past = reinterpret_cast<char*>(memory) + launch.shared;
        __asan_poison_memory_region(past, SHARED - launch.shared);
#endif
        release(&own.start_order);
        run_block(launch.order);
        acquire(&own.end_order);
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(memory, SHARED);
        __asan_unpoison_memory_region(stacks, size * STACK);
#endif
    }
#if defined(__SANITIZE_THREAD__)
    for (unsigned k = 0; k < size; ++k) __tsan_destroy_fiber(own.fibers[k].sanitizer);
#endif
    munmap(stacks, size * STACK);
    free(own.fibers);
    free(own.warps);
    free(own.waits);
    return nullptr;
}

template <typename... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
}

// What calls a kernel with arguments given by their addresses.
template <auto KERNEL, typename... A>
constexpr auto caller(void (*)(A...)) {
    return +[](void** arguments) { call(KERNEL, arguments, std::index_sequence_for<A...>()); };
}

// The types of a kernel's arguments in letters: NumPy's, and P for a pointer.
template <typename T>
constexpr char LETTER = std::is_pointer_v<T>           ? 'P'
                        : std::is_same_v<T, float>  ? 'f'
                        : std::is_same_v<T, double> ? 'd'
                        : std::is_same_v<T, int>    ? 'i'
                                                    : '?';

template <typename... A>
const char* signature(void (*)(A...)) {
    static const char letters[] = {LETTER<std::remove_cv_t<A>>..., 0};
    return letters;
}

// Runs a kernel and says what went wrong, or nothing. A cooperative launch has all blocks at once.
inline const char* launch(Launch what, bool cooperative) {
    const unsigned blocks = what.grid.size(), size = what.threads.size();
    if (size % LANES != 0 || size > 1024) return "a block is no whole number of warps, or too large";
    if (what.shared > SHARED) return "more shared memory than a block can have";
    failure = nullptr;
    what.workers = cooperative || blocks < 2 ? blocks : 2;
    Worker* workers = new Worker[what.workers];
    for (unsigned k = 0; k < what.workers; ++k) {
        workers[k].launch = &what;
        workers[k].first = k;
        pthread_create(&workers[k].thread, nullptr, run_blocks, &workers[k]);
    }
    for (unsigned k = 0; k < what.workers; ++k) pthread_join(workers[k].thread, nullptr);
    delete[] workers;
    return failure;
}

}  // namespace emulator

