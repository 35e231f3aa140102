// Backpropagation through layers whose matrix products are small: each product takes along what
// comes before and after it, fetching the minibatch, biases, activations, slopes, softmax and the
// update, so that an update takes 3·layers − 1 launches.
//
// A product of 100 × 784 by 784 × 512 is 80 million operations, 2 µs of a large GPU; what costs time
// is waiting for numbers. So tiles are small, for the sake of many blocks, and the warps of a block
// deal the inner dimension out among themselves: every warp makes the whole tile of its share, 4 by
// 4 numbers a lane, straight from the caches, and waits for no other until they are added up.
//
// All sums are taken in a fixed order: the same bits in every run.

constexpr int ROWS = 16, COLUMNS = 32;      // of a tile

// A matrix by rows, where a row may be looked up: row r is the one with the number lookup[r].
template <typename T>
struct Matrix {
    const T* numbers;
    int rows, columns;
    const long long* lookup;

    __device__ const T* row(int r) const {
        return numbers + (lookup ? lookup[r] : r) * (long long)columns;
    }
};

template <typename T>
struct alignas(16) Vector {
    T numbers[16 / sizeof(T)];
};

// Load four numbers that follow each other; the first is where a vector can be loaded.
template <typename T>
static __device__ __forceinline__ void load_vectors(T (&to)[4], const T* from) {
    constexpr int LENGTH = 16 / sizeof(T);
#pragma unroll
    for (int k = 0; k < 4; k += LENGTH) {
        const Vector<T> vector = *reinterpret_cast<const Vector<T>*>(from + k);
#pragma unroll
        for (int r = 0; r < LENGTH; ++r) to[k + r] = vector.numbers[r];
    }
}

// Four lines of a matrix, its rows or columns; with ONES, there is one more column, of ones. Lines
// that do not exist hold whatever comes.
template <typename T, bool BY_COLUMN, bool ONES = false>
struct Lines {
    Matrix<T> m;
    int first;
    bool vectors;           // whether `load_whole` may be called
    const T* rows[4];       // of the matrix, if they are the lines

    __device__ __forceinline__ Lines(const Matrix<T>& m, int first) : m(m), first(first) {
        vectors = m.columns % (16 / sizeof(T)) == 0 && (size_t)m.numbers % 16 == 0 &&
                  (!BY_COLUMN || first + 4 <= m.columns);
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            rows[r] = BY_COLUMN ? nullptr : m.row(min(first + r, m.rows - 1));
        }
    }

    // The numbers inner, ..., inner + 3 of each line.
    __device__ __forceinline__ void load_whole(T (&to)[4][4], int inner) const {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            if (!BY_COLUMN) {
                load_vectors(to[k], rows[k] + inner);
                continue;
            }
            T row[4];
            load_vectors(row, m.row(inner + k) + first);
#pragma unroll
            for (int r = 0; r < 4; ++r) to[r][k] = row[r];
        }
    }

    // The same, where there may be fewer; the rest are 0.
    __device__ __forceinline__ void load(T (&to)[4][4], int inner) const {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const bool real = inner + k < (BY_COLUMN ? m.rows : m.columns);
            const T* row = BY_COLUMN && real ? m.row(inner + k) : nullptr;
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                to[r][k] = 0;
                if (real && !BY_COLUMN) to[r][k] = rows[r][inner + k];
                if (real && BY_COLUMN) to[r][k] = first + r < m.columns ? row[first + r] : T(ONES);
            }
        }
    }
};

template <typename T>
static __device__ __forceinline__ void add_products(T (&sums)[4][4], const T (&a)[4][4],
                                                    const T (&b)[4][4]) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
#pragma unroll
            for (int c = 0; c < 4; ++c) sums[r][c] += a[r][k] * b[c][k];
        }
    }
}

// A block's tile of a product of two matrices: `depth` long lines of `left`, which are its rows or
// columns, by lines of `right`. With ONES, there is one more column of `left`, of ones.
//
// For each number of the tile, real or not, `before(row, column)` is called, and in the end
// `use(row, column, sum, what before returned)`: by whole warps at once, whose lanes are columns.
template <typename T, int WARPS, bool LEFT_BY_COLUMN, bool RIGHT_BY_COLUMN, bool ONES,
          typename Before, typename Use>
static __device__ __forceinline__ void multiply(const Matrix<T>& left, const Matrix<T>& right,
                                                int depth, Before before, Use use) {
    constexpr int STEP = 4 * WARPS, EACH = ROWS / WARPS;
    __shared__ T partial[WARPS][ROWS][COLUMNS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int top = blockIdx.y * ROWS, first = blockIdx.x * COLUMNS;
    const int row = lane / 8 * 4, column = lane % 8 * 4;
    decltype(before(0, 0)) early[EACH];
#pragma unroll
    for (int k = 0; k < EACH; ++k) early[k] = before(top + warp + WARPS * k, first + lane);
    const Lines<T, LEFT_BY_COLUMN, ONES> a_lines(left, top + row);
    const Lines<T, RIGHT_BY_COLUMN> b_lines(right, first + column);
    T sums[4][4] = {}, a[4][4], b[4][4];
    int inner = 4 * warp;
    if (a_lines.vectors && b_lines.vectors) {
#pragma unroll 2
        for (; inner + 4 <= depth; inner += STEP) {
            a_lines.load_whole(a, inner);
            b_lines.load_whole(b, inner);
            add_products(sums, a, b);
        }
    } else if (a_lines.vectors) {
#pragma unroll 2
        for (; inner + 4 <= depth; inner += STEP) {
            a_lines.load_whole(a, inner);
            b_lines.load(b, inner);
            add_products(sums, a, b);
        }
    }
#pragma unroll 1
    for (; inner < depth; inner += STEP) {
        a_lines.load(a, inner);
        b_lines.load(b, inner);
        add_products(sums, a, b);
    }
#pragma unroll
    for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int c = 0; c < 4; ++c) partial[warp][row + r][column + c] = sums[r][c];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < EACH; ++k) {
        const int r = warp + WARPS * k;
        T sum = 0;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) sum += partial[w][r][lane];
        use(top + r, first + lane, sum, early[k]);
    }
}

// All launches: WARPS warps, which deal the inner dimension out; a block for each tile of the result,
// columns first. Sizes are those of the layer: inputs, outputs. `rows` (updates, samples) are the
// minibatches' rows of the data set; where `before` are not rows of it but the samples themselves,
// it is null. `counts` are the minibatches that are done, and those that are begun.

// out = activation(before · W + b), and its slopes.
template <typename T, int WARPS, int ACTIVATION>
__global__ void __launch_bounds__(32 * WARPS, 1) forward(
        const T* __restrict__ before, const long long* rows, const int* counts,
        const T* __restrict__ W, const T* __restrict__ b, T* __restrict__ out,
        T* __restrict__ slopes, int samples, int inputs, int outputs) {
    if (rows) rows += (long long)counts[0] * samples;
    const Matrix<T> left = {before, samples, inputs, rows}, right = {W, inputs, outputs, nullptr};
    const auto bias = [&](int, int j) { return j < outputs ? b[j] : T(0); };
    multiply<T, WARPS, false, true, false>(
            left, right, inputs, bias, [&](int n, int j, T sum, T b_j) {
        if (n >= samples || j >= outputs) return;
        const long long at = (long long)n * outputs + j;
        out[at] = activate<T, ACTIVATION>(sum + b_j, slopes[at]);
    });
}

// delta = the gradient of the loss by the scores before · W + b, times scale / samples; and the
// loss of each sample. Up to 32 classes, so that a warp has all scores of a sample.
//
// With e = exp(z − max z) and rest = Σ e over the classes that are wrong, the gradient is e / Σe,
// and −rest / Σe for the label, right to rounding however sure the network is; so is the loss,
// log Σe − (z[label] − max z).
//
//   looked_up whether `before` is the data set
//   rows      never null here, as labels are looked up in any case
template <typename T, int WARPS>
__global__ void __launch_bounds__(32 * WARPS, 1) last(
        const T* __restrict__ before, int looked_up, const long long* rows, int* counts,
        const long long* __restrict__ labels, const T* __restrict__ W, const T* __restrict__ b,
        T* __restrict__ delta, T* __restrict__ losses, T scale, int samples, int inputs,
        int classes) {
    struct Truth {
        int label;
        T bias;
    };
    rows += (long long)counts[0] * samples;
    const Matrix<T> left = {before, samples, inputs, looked_up ? rows : nullptr};
    const Matrix<T> right = {W, inputs, classes, nullptr};
    const auto truth = [&](int n, int c) {
        return Truth{n < samples ? int(labels[rows[n]]) : 0, c < classes ? b[c] : T(0)};
    };
    multiply<T, WARPS, false, true, false>(
            left, right, inputs, truth, [&](int n, int c, T sum, Truth known) {
        if (n >= samples) return;
        const bool real = c < classes;
        // The lanes past the last class repeat the first, which moves no maximum.
        const T first = __shfl_sync(ALL, sum + known.bias, 0), z = real ? sum + known.bias : first;
        const T shifted = z - warp_max(z);
        const T e = real ? Exp(shifted) : T(0), rest = warp_sum(c == known.label ? T(0) : e);
        const T own = __shfl_sync(ALL, e, known.label);
        const T score = __shfl_sync(ALL, shifted, known.label);
        const T factor = scale / samples / (rest + own);
        if (real) delta[(long long)n * classes + c] = (c == known.label ? -rest : e) * factor;
        if (c == 0) losses[n] = Log1p(rest + Expm1(score)) - score;
    });
    if (blockIdx.y == 0 && threadIdx.x == 0) counts[1] = counts[0] + 1;
}

// before = (delta · Wᵀ) · slopes.
template <typename T, int WARPS>
__global__ void __launch_bounds__(32 * WARPS, 1) back(
        const T* __restrict__ delta, const T* __restrict__ W, const T* __restrict__ slopes,
        T* __restrict__ before, int samples, int inputs, int outputs) {
    const Matrix<T> left = {delta, samples, outputs, nullptr};
    const Matrix<T> right = {W, inputs, outputs, nullptr};
    const auto slope = [&](int n, int i) {
        return n < samples && i < inputs ? slopes[(long long)n * inputs + i] : T(0);
    };
    multiply<T, WARPS, false, false, false>(
            left, right, outputs, slope, [&](int n, int i, T sum, T factor) {
        if (n < samples && i < inputs) before[(long long)n * inputs + i] = sum * factor;
    });
}

// W += beforeᵀ · delta and b += Σ delta; or they become that, if not `kept`. The launch for the
// first layer, which has `rows`, ends the update: it leaves the mean loss.
template <typename T, int WARPS>
__global__ void __launch_bounds__(32 * WARPS, 1) weights(
        const T* __restrict__ before, const long long* rows, int* counts,
        const T* __restrict__ delta, T* __restrict__ W, T* __restrict__ b,
        const T* __restrict__ sample_losses, T* __restrict__ losses, int kept, int samples,
        int inputs, int outputs) {
    const int done = counts[1] - 1;
    const bool ends = rows;
    if (rows) rows += (long long)done * samples;
    const Matrix<T> left = {before, samples, inputs, rows};
    const Matrix<T> right = {delta, samples, outputs, nullptr};
    const auto place = [&](int i, int j) {
        return i < inputs ? W + (long long)i * outputs + j : b + j;
    };
    const auto old = [&](int i, int j) {
        return kept && i <= inputs && j < outputs ? *place(i, j) : T(0);
    };
    multiply<T, WARPS, true, true, true>(
            left, right, samples, old, [&](int i, int j, T sum, T start) {
        if (i <= inputs && j < outputs) *place(i, j) = start + sum;
    });
    if (!ends || blockIdx.x || blockIdx.y || threadIdx.x >= 32) return;
    T sum = 0;
    for (int n = threadIdx.x; n < samples; n += 32) sum += sample_losses[n];
    sum = warp_sum(sum);
    if (threadIdx.x == 0) {
        losses[done] = sum / samples;
        counts[0] = done + 1;
    }
}
