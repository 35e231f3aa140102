// CUDA as far as the kernels use it, in terms of emulator.h: to be included before their source.
#pragma once

#include <algorithm>

#include "emulator.h"

// What a program calls: two C functions for each kernel.
#define EMULATED(NUMBER, ...)                                                                 \
    extern "C" const char* launch_##NUMBER(const unsigned* grid, const unsigned* threads,     \
                                           size_t shared, void** arguments, unsigned order,   \
                                           int cooperative) {                                 \
        const auto kernel = emulator::caller<&__VA_ARGS__>(&__VA_ARGS__);                     \
        return emulator::launch({{grid[0], grid[1], grid[2]},                                 \
                                 {threads[0], threads[1], threads[2]},                        \
                                 shared, order, kernel, arguments, 0},                        \
                                cooperative);                                                 \
    }                                                                                         \
    extern "C" const char* signature_##NUMBER() { return emulator::signature(&__VA_ARGS__); }

// CUDA, as far as the kernels use it.
#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __shared__ thread_local
#define __launch_bounds__(...)

using std::abs;
inline float max(float a, float b) { return std::fmax(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }
inline float min(float a, float b) { return std::fmin(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline int min(int a, int b) { return std::min(a, b); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }

template <typename T>
T __ldcg(const T* address) {
    return *address;
}

template <typename T>
void __stcg(T* address, T value) {
    *address = value;
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source) {
    return emulator::shuffle("shuffle", mask, value, unsigned(source));
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int step) {
    const unsigned lane = emulator::block->current % emulator::LANES;
    return emulator::shuffle("shuffle by xor", mask, value, lane ^ unsigned(step));
}

inline unsigned __ballot_sync(unsigned mask, bool vote) {
    const uint64_t* votes = emulator::show("ballot", mask, vote);
    unsigned bits = 0;
    for (unsigned k = 0; k < emulator::LANES; ++k) bits |= unsigned(votes[k]) << k;
    return bits;
}

inline void __syncwarp() {
    emulator::Warp& warp = emulator::block->warps[emulator::block->current / emulator::LANES];
    char* order = &warp.order[warp.operations % 2];
    emulator::release(order);
    emulator::meet_warp("barrier of the warp");
    emulator::acquire(order);
}

inline void __syncthreads() { emulator::meet_block(); }

// Of the grid's barrier.
inline void add_release(unsigned* count) { __atomic_fetch_add(count, 1, __ATOMIC_RELEASE); }

inline unsigned load_acquire(const unsigned* count) {
    emulator::wait_for(emulator::Wait::SPINS);
    return __atomic_load_n(count, __ATOMIC_ACQUIRE);
}
