// Many updates of SGD in one launch: a network with one hidden layer and softmax cross entropy.
//
// One update of 784-50-10 at batch 100 is 16 million operations, under 2 µs of a large GPU: what
// costs time is waiting. So one cooperative launch walks a whole block of minibatches, and every
// update has just two phases with a barrier of all blocks after each:
//
//   samples   A block takes a sample: z1 = x W1 + b1 (inputs that are 0 skipped), a1, z2, loss,
//             δ2 = −(lr/N)(y − t), δ1 = (δ2 W2ᵀ)·a1'. Leaves a1, δ1 and δ2 in memory.
//             With e = exp(z2 − max z2) and rest = Σ e over the classes that are wrong, y − t is
//             e / Σe, and −rest / Σe for the label: right to rounding however sure the network is.
//             So is the loss, log Σe − (z2[label] − max z2).
//   weights   A block takes a tile of 8 rows of W1 (the last row is b1), W += xᵀ δ1, or of 2 rows
//             of W2 (and b2), W2 += a1ᵀ δ2.
//
// Between arriving at a barrier and passing it, a block fetches what it needs of the data set for
// the next phase, which hides the latency of memory behind that of the barrier. The indices of all
// minibatches are on the device before; nothing is sent or waited for in between.
//
// All sums are taken in a fixed order: the same bits in every run, for any number of blocks.
//
// Per update: 2·2·N·I·J operations (15.7 M; with 19 % of inputs not 0, forward only 1.5 M), reads
// of N rows of the data set twice (0.6 MB) and of W1 rows from the level-2 cache (N · 150 · 4 · J,
// 3 MB). At 5 TB/s of level-2 bandwidth and 30 TFLOP/s that is 1 µs. An H100 takes 9.9 µs: waiting
// at the barriers is 1.7 of them, the sums over rows of W1 in the first phase 2.0, and most of the
// rest the chain of dependent loads, sums over a warp and exponentials.

constexpr int WARPS = 16;
constexpr int THREADS = 32 * WARPS;
constexpr int ROWS = 8;         // rows of W1 in a tile
constexpr int LAST_ROWS = 2;    // rows of W2 in a tile

#ifdef __CUDA_ARCH__  // the tests compile this file for the CPU, and bring their own
static __device__ __forceinline__ void add_release(unsigned* count) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(count) : "memory");
}

static __device__ __forceinline__ unsigned load_acquire(const unsigned* count) {
    unsigned seen;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(count) : "memory");
    return seen;
}
#endif

// A barrier of all blocks, in two halves. `count` only ever grows: barrier k is passed when every
// block has arrived k times. __syncthreads puts the block's writes before the release.
static __device__ __forceinline__ void arrive(unsigned* count) {
    __syncthreads();
    if (threadIdx.x == 0) add_release(count);
}

static __device__ __forceinline__ void wait(const unsigned* count, unsigned arrivals) {
    if (threadIdx.x == 0) {
        while (load_acquire(count) < arrivals) {
        }
    }
    __syncthreads();
}

// Launch cooperatively with THREADS threads and any number of blocks that fits the device.
//
//   x, labels (M, INPUTS), (M)            the data set; labels from 0 to CLASSES − 1
//   rows      (updates, SAMPLES)          the minibatches
//   W1 ... b2                             the parameters, updated in place
//   a1, δ1    (SAMPLES, HIDDEN)           workspace
//   δ2        (SAMPLES, CLASSES)          workspace
//   sample_losses (SAMPLES)               workspace
//   losses    (updates)                   mean loss of each minibatch before its update
//   arrived   ()                          0 at the start
template <typename T, int ACTIVATION, int INPUTS, int HIDDEN, int CLASSES, int SAMPLES>
__global__ void __launch_bounds__(THREADS, 1) sgd(
        const T* __restrict__ x, const long long* __restrict__ labels,
        const long long* __restrict__ rows,
        T* W1, T* b1, T* W2, T* b2, T* a1, T* delta1, T* delta2, T* sample_losses, T* losses,
        unsigned* arrived, T lr, int updates) {
    constexpr int PER_LANE = (HIDDEN + 31) / 32;
    constexpr int CHUNKS = (INPUTS + THREADS - 1) / THREADS;
    constexpr int TILES = (INPUTS + 1 + ROWS - 1) / ROWS;
    constexpr int LAST_TILES = (HIDDEN + 1 + LAST_ROWS - 1) / LAST_ROWS;
    constexpr int GROUPS = THREADS / (32 * PER_LANE);           // of samples, in a tile of W1
    constexpr int PER_GROUP = (SAMPLES + GROUPS - 1) / GROUPS;
    constexpr int SLOTS = (SAMPLES * ROWS + THREADS - 1) / THREADS;
    constexpr int OWN = (ROWS * HIDDEN + THREADS - 1) / THREADS;
    constexpr int OWN2 = (HIDDEN * CLASSES + THREADS - 1) / THREADS;
    // Loads in flight: as many as the registers allow.
    constexpr int DEPTH = sizeof(T) == 4 ? 8 : 4;
    constexpr int PARTS = GROUPS * ROWS > WARPS ? GROUPS * ROWS : WARPS;
    static_assert(HIDDEN <= 128 && CLASSES <= 32, "too large");

    extern __shared__ double memory[];
    T* tile_x = reinterpret_cast<T*>(memory);                   // (SAMPLES, ROWS)
    T(*partial)[HIDDEN] = reinterpret_cast<T(*)[HIDDEN]>(tile_x + SAMPLES * ROWS);   // (PARTS, )
    T(*values)[32 * CHUNKS] = reinterpret_cast<T(*)[32 * CHUNKS]>(partial + PARTS);  // (WARPS, )
    short(*places)[32 * CHUNKS] = reinterpret_cast<short(*)[32 * CHUNKS]>(values + WARPS);
    __shared__ T hidden[HIDDEN], slopes[HIDDEN], weights2[HIDDEN * CLASSES];
    __shared__ T scores[CLASSES], errors[CLASSES];

    const int tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
    const int blocks = gridDim.x, block = blockIdx.x;
    unsigned arrivals = 0;

    // What this block will need next of the data set: its rows, then what is in them, each loaded
    // a phase before its use; so that no thread waits for one in order to ask for the other.
    int sample_row = 0, label = 0, slot_rows[SLOTS];
    T input[CHUNKS], slot[SLOTS];
    int count = 0;      // of this warp's inputs that are not 0
    const auto row_of = [&](int update, int n) { return int(rows[(long long)update * SAMPLES + n]); };

    // Inputs i = warp + WARPS·k of a sample, so that warps share those that are not 0 about evenly.
    const auto fetch_sample = [&] {
        const T* row = x + (long long)sample_row * INPUTS;
#pragma unroll
        for (int k = 0; k < CHUNKS; ++k) {
            const int i = warp + WARPS * (lane + 32 * k);
            input[k] = i < INPUTS ? row[i] : T(0);
        }
        if (warp == 0) label = int(labels[sample_row]);
    };
    const auto list_inputs = [&] {
        count = 0;
#pragma unroll
        for (int k = 0; k < CHUNKS; ++k) {
            const unsigned used = __ballot_sync(ALL, input[k] != 0);
            if (input[k] != 0) {
                const int at = count + __popc(used & ((1u << lane) - 1));
                values[warp][at] = input[k];
                places[warp][at] = short(warp + WARPS * (lane + 32 * k));
            }
            count += __popc(used);
        }
        __syncwarp();
    };
    // The inputs of all samples that a tile of W1 needs; 1 for the bias.
    const auto find_tile = [&](int update) {
#pragma unroll
        for (int k = 0; k < SLOTS; ++k) {
            const int n = (tid + THREADS * k) / ROWS;
            slot_rows[k] = n < SAMPLES ? row_of(update, n) : 0;
        }
    };
    const auto fetch_tile = [&](int tile) {
        const int i = tile * ROWS + tid % ROWS;
#pragma unroll
        for (int k = 0; k < SLOTS; ++k) {
            slot[k] = i < INPUTS ? x[(long long)slot_rows[k] * INPUTS + i] : T(i == INPUTS);
        }
    };
    const auto store_tile = [&] {
#pragma unroll
        for (int k = 0; k < SLOTS; ++k) {
            if (tid + THREADS * k < SAMPLES * ROWS) tile_x[tid + THREADS * k] = slot[k];
        }
    };

    find_tile(0);
    if (block < SAMPLES) {
        sample_row = row_of(0, block);
        fetch_sample();
        list_inputs();
    }
    for (int update = 0; update < updates; ++update) {
        const bool more = update + 1 < updates;
        if (block < TILES) fetch_tile(block);
        for (int n = block; n < SAMPLES; n += blocks) {
            if (n != block) {
                sample_row = row_of(update, n);
                fetch_sample();
                list_inputs();
            }
            // Parameters change between phases, so they are read past the level-1 cache; all at
            // once, long before they are used.
            T bias1 = 0, bias2 = 0, own2[OWN2];
#pragma unroll
            for (int k = 0; k < OWN2; ++k) {
                const int at = tid + THREADS * k;
                own2[k] = at < HIDDEN * CLASSES ? __ldcg(W2 + at) : T(0);
            }
            if (tid < HIDDEN) bias1 = __ldcg(b1 + tid);
            if (tid < CLASSES) bias2 = __ldcg(b2 + tid);
            T sums[PER_LANE];
#pragma unroll
            for (int k = 0; k < PER_LANE; ++k) sums[k] = 0;
            for (int start = 0; start < count; start += DEPTH) {
                T value[DEPTH], weight[DEPTH][PER_LANE];
#pragma unroll
                for (int m = 0; m < DEPTH; ++m) {
                    const bool listed = start + m < count;
                    const int i = listed ? places[warp][start + m] : 0;
                    value[m] = listed ? values[warp][start + m] : T(0);
#pragma unroll
                    for (int k = 0; k < PER_LANE; ++k) {
                        const int j = lane + 32 * k;
                        weight[m][k] = listed && j < HIDDEN ? __ldcg(W1 + i * HIDDEN + j) : T(0);
                    }
                }
#pragma unroll
                for (int m = 0; m < DEPTH; ++m) {
#pragma unroll
                    for (int k = 0; k < PER_LANE; ++k) sums[k] += value[m] * weight[m][k];
                }
            }
#pragma unroll
            for (int k = 0; k < PER_LANE; ++k) {
                if (lane + 32 * k < HIDDEN) partial[warp][lane + 32 * k] = sums[k];
            }
#pragma unroll
            for (int k = 0; k < OWN2; ++k) {
                if (tid + THREADS * k < HIDDEN * CLASSES) weights2[tid + THREADS * k] = own2[k];
            }
            __syncthreads();
            if (tid < HIDDEN) {
                T z = bias1;
#pragma unroll
                for (int k = 0; k < WARPS; ++k) z += partial[k][tid];
                hidden[tid] = activate<T, ACTIVATION>(z, slopes[tid]);
                a1[n * HIDDEN + tid] = hidden[tid];
            }
            __syncthreads();
            for (int c = warp; c < CLASSES; c += WARPS) {
                T z = 0;
#pragma unroll
                for (int k = 0; k < PER_LANE; ++k) {
                    const int j = lane + 32 * k;
                    if (j < HIDDEN) z += hidden[j] * weights2[j * CLASSES + c];
                }
                z = warp_sum(z);
                if (lane == 0) scores[c] = z;
            }
            __syncthreads();
            if (warp == 0) {
                const bool real = lane < CLASSES;
                // The lanes past the last class repeat the first, which moves no maximum.
                const T first = __shfl_sync(ALL, bias2, 0) + scores[0];
                const T z = real ? bias2 + scores[lane] : first;
                const T shifted = z - warp_max(z);
                const T e = real ? Exp(shifted) : T(0);
                const T rest = warp_sum(lane == label ? T(0) : e);
                const T total = rest + __shfl_sync(ALL, e, label);
                const T score = __shfl_sync(ALL, shifted, label);
                if (real) {
                    errors[lane] = (lane == label ? -rest : e) / total * (-lr / SAMPLES);
                    delta2[n * CLASSES + lane] = errors[lane];
                }
                if (lane == 0) sample_losses[n] = Log1p(rest + Expm1(score)) - score;
            }
            __syncthreads();
            if (tid < HIDDEN) {
                T delta = 0;
#pragma unroll
                for (int c = 0; c < CLASSES; ++c) delta += errors[c] * weights2[tid * CLASSES + c];
                delta1[n * HIDDEN + tid] = delta * slopes[tid];
            }
            __syncthreads();
        }
        arrivals += blocks;
        arrive(arrived);
        if (block < TILES) store_tile();
        if (more && block < SAMPLES) sample_row = row_of(update + 1, block);
        wait(arrived, arrivals);

        if (more && block < SAMPLES) fetch_sample();
        for (int tile = block; tile < TILES + LAST_TILES; tile += blocks) {
            if (tile < TILES) {
                if (tile != block) {
                    fetch_tile(tile);
                    store_tile();
                    __syncthreads();
                }
                T own[OWN];
#pragma unroll
                for (int k = 0; k < OWN; ++k) {
                    const int at = tid + THREADS * k, i = tile * ROWS + at / HIDDEN;
                    own[k] = 0;
                    if (at < ROWS * HIDDEN && i <= INPUTS) {
                        own[k] = __ldcg(i < INPUTS ? W1 + i * HIDDEN + at % HIDDEN
                                                   : b1 + at % HIDDEN);
                    }
                }
                // A thread takes a column j and every GROUPS-th sample, for all rows of the tile.
                const int group = tid / (32 * PER_LANE), j = tid % (32 * PER_LANE);
                if (group < GROUPS && j < HIDDEN) {
                    T sums[ROWS];
#pragma unroll
                    for (int r = 0; r < ROWS; ++r) sums[r] = 0;
#pragma unroll(PER_GROUP < 2 * DEPTH ? PER_GROUP : 2 * DEPTH)
                    for (int k = 0; k < PER_GROUP; ++k) {
                        const int n = group + GROUPS * k;
                        if (n < SAMPLES) {
                            const T delta = __ldcg(delta1 + n * HIDDEN + j);
#pragma unroll
                            for (int r = 0; r < ROWS; ++r) sums[r] += tile_x[n * ROWS + r] * delta;
                        }
                    }
#pragma unroll
                    for (int r = 0; r < ROWS; ++r) partial[group * ROWS + r][j] = sums[r];
                }
                __syncthreads();
#pragma unroll
                for (int k = 0; k < OWN; ++k) {
                    const int at = tid + THREADS * k, r = at / HIDDEN, column = at % HIDDEN;
                    const int i = tile * ROWS + r;
                    if (r >= ROWS || i > INPUTS) continue;
#pragma unroll
                    for (int g = 0; g < GROUPS; ++g) own[k] += partial[g * ROWS + r][column];
                    __stcg(i < INPUTS ? W1 + i * HIDDEN + column : b1 + column, own[k]);
                }
            } else {
                // A warp takes an element of W2 or b2, its lanes take samples.
                const int top = (tile - TILES) * LAST_ROWS;
                for (int k = warp; k < LAST_ROWS * CLASSES; k += WARPS) {
                    const int j = top + k / CLASSES, c = k % CLASSES;
                    if (j > HIDDEN) continue;
                    T* param = j < HIDDEN ? W2 + j * CLASSES + c : b2 + c;
                    const T before = lane == 0 ? __ldcg(param) : T(0);
                    T sum = 0;
#pragma unroll 4
                    for (int n = lane; n < SAMPLES; n += 32) {
                        const T error = __ldcg(delta2 + n * CLASSES + c);
                        sum += j < HIDDEN ? error * __ldcg(a1 + n * HIDDEN + j) : error;
                    }
                    sum = warp_sum(sum);
                    if (lane == 0) __stcg(param, before + sum);
                }
                if (tile == TILES + LAST_TILES - 1 && warp == WARPS - 1) {
                    T sum = 0;
                    for (int n = lane; n < SAMPLES; n += 32) sum += __ldcg(sample_losses + n);
                    sum = warp_sum(sum);
                    if (lane == 0) losses[update] = sum / SAMPLES;
                }
            }
        }
        arrivals += blocks;
        arrive(arrived);
        if (more && block < SAMPLES) list_inputs();
        if (more) find_tile(update + 1);
        wait(arrived, arrivals);
    }
}
