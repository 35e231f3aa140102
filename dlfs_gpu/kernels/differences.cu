// Central differences of the loss of a network with one hidden layer and softmax cross entropy.
//
// The mathematics is that of the layers' `difference`. Moving W[i, j] by h moves output j of its
// layer, for sample n, by d = h·x[n, i]; through the activation that becomes s, through the next
// layer s·W'[j, :], and in the loss of a sample with label l
//
//     log1p(Σ_c y_c·expm1(s·w_c)) − s·w_l,    w_c = W'[j, c] − W'[j, likeliest],
//
// where w_l is 0 if the label is the likeliest class, so that nothing is subtracted from a loss
// that is nearly 0; otherwise w_l is no smaller than what it is subtracted from. d, s and the
// loss's change never leave the registers. Where a change is beyond 40, exponentials may overflow
// and there is nothing left to cancel: then the values before and after are subtracted.
//
// A warp's lanes are 32 outputs j and share the input, so inputs that are 0 are skipped without
// divergence, and loads are coalesced or the same for the whole warp. Samples are summed in a fixed
// order, in double: the same bits in every run.

constexpr double FAR = 40;  // e^40 is beyond 1/eps

// The largest whole number whose exponential does not overflow.
template <typename T>
constexpr T LIMIT = sizeof(T) == 4 ? 88 : 709;

template <typename T>
static __device__ __forceinline__ T sigmoid(T z) {
    const T e = Exp(-abs(z));
    return z < 0 ? e / (1 + e) : 1 / (1 + e);
}

// σ(z + d) − σ(z), with q = exp(−z). Where d is far, or exp(±z) would overflow, the smaller of
// σ(±z) and σ(±(z + d)) is nothing to the other, or both are as small as numbers can be.
template <typename T>
static __device__ __forceinline__ T sigmoid_change(T d, T z, T q) {
    if (abs(d) > T(FAR) || abs(z) > LIMIT<T>) {
        return z < 0 ? sigmoid(z + d) - sigmoid(z) : sigmoid(-z) - sigmoid(-z - d);
    }
    const T e = Expm1(d);
    return e / (1 + 1 / q) / (q + (e + 1));
}

// The change of an activation's output when its input z changes by d.
template <typename T, int ACTIVATION>
static __device__ __forceinline__ T activation_change(T d, T z, T q) {
    if (ACTIVATION == SIGMOID) return sigmoid_change(d, z, q);
    if (ACTIVATION == TANH) return 2 * sigmoid_change(2 * d, 2 * z, q);
    return max(d + min(z, T(0)), -max(z, T(0)));
}

// log Σ y·e^d, d = s·(w − reference), where a d is far: y may be too small to be held, so log y is used. Out
// of line, as it is hardly ever needed.
template <typename T, int CLASSES>
static __device__ __noinline__ T far_change(T s, const T* w, T reference, const T* y,
                                            const T* log_y) {
    T largest = 0, sum = 0;
    for (int c = 0; c < CLASSES; ++c) largest = max(largest, log_y[c] + s * (w[c] - reference));
    if (largest > T(FAR / 2)) {
        for (int c = 0; c < CLASSES; ++c) {
            sum += Exp(log_y[c] + s * (w[c] - reference) - largest);
        }
        return Log(sum) + largest;
    }
    for (int c = 0; c < CLASSES; ++c) {
        const T d = s * (w[c] - reference);
        sum += d > T(FAR) ? Exp(log_y[c] + d) : y[c] * Expm1(d);
    }
    return Log1p(sum);
}

// log Σ y·e^d when the scores move by s along w − reference. `next` is w in memory.
template <typename T, int CLASSES>
static __device__ __forceinline__ T line_change(T s, const T (&w)[CLASSES], const T* next,
                                                T reference, const T* y, const T* log_y) {
    T sum = 0, largest = 0;
#pragma unroll
    for (int c = 0; c < CLASSES; ++c) {
        const T d = s * (w[c] - reference);
        largest = max(largest, d);
        sum += y[c] * Expm1(d);
    }
    if (largest > T(FAR)) return far_change<T, CLASSES>(s, next, reference, y, log_y);
    return Log1p(sum);
}

// log Σ y over all classes but one, where y may be too small to be held.
template <typename T, int CLASSES>
static __device__ __noinline__ T log_others(const T* log_y, int column) {
    T largest = -1e30, sum = 0;
    for (int c = 0; c < CLASSES; ++c) {
        if (c != column) largest = max(largest, log_y[c]);
    }
    for (int c = 0; c < CLASSES; ++c) {
        if (c != column) sum += Exp(log_y[c] - largest);
    }
    return sum > 0 ? largest + Log(sum) : largest;
}

// The change of one sample's loss when the score of one class alone moves by d: log1p(y·expm1(d)),
// minus d for the label. Where that class is the likelier, relative to the others:
// log1p((1 − y)·expm1(−d)) + d, so that log1p loses no digits; then d is added and subtracted for
// the label, so it is left out. 1 − y is the sum of the others, never a subtraction.
template <typename T, int CLASSES>
static __device__ __forceinline__ T score_change(T d, const T* y, T others, const T* log_y,
                                                 int column, bool is_label) {
    const bool mirrored = y[column] >= T(0.5);
    const T up = mirrored ? -d : d;
    T change;
    if (up > T(FAR)) {  // e^up alone may overflow
        const T log_part = mirrored ? log_others<T, CLASSES>(log_y, column) : log_y[column];
        const T exponent = log_part + up;
        change = exponent > 0 ? exponent + Log1p(Exp(-exponent)) : Log1p(Exp(exponent));
    } else {
        change = Log1p((mirrored ? others : y[column]) * Expm1(up));
    }
    if (mirrored == is_label) return change;
    return mirrored ? change + d : change - d;
}

// Grid: (inputs + 1, outputs / 32 rounded up); block: (32, warps), at most 4. One block takes one
// input i (the last is the bias) and 32 outputs j; each warp takes 32 samples at a time.
//
//   x            (N, inputs)       the layer's input
//   z, q         (N, outputs)      the activation's input, and exp(−z), exp(−2z) for TANH; unused
//                                  for LAST, q also for RELU
//   next         (outputs, C)      the next layer's weights; unused for LAST
//   y, log_y     (N, C)            probabilities and their logarithms
//   labels, likeliest (N)          the label, and the class of the largest probability
//   gradient     (inputs + 1, outputs)  scale · Σ over samples of L(+h) − L(−h)
template <typename T, int ACTIVATION, int CLASSES>
__global__ void __launch_bounds__(128, 1) differences(
        const T* __restrict__ x, const T* __restrict__ z, const T* __restrict__ q,
        const T* __restrict__ next, const T* __restrict__ y, const T* __restrict__ log_y,
        const long long* __restrict__ labels, const int* __restrict__ likeliest,
        T* __restrict__ gradient, T h, double scale, int samples, int inputs, int outputs) {
    __shared__ double sums[4][32];
    const int lane = threadIdx.x, warp = threadIdx.y, warps = blockDim.y;
    const int i = blockIdx.x, j = blockIdx.y * 32 + lane;
    const bool inside = j < outputs;
    const int column = inside ? j : 0;

    T w[CLASSES];
    if (ACTIVATION != LAST) {
#pragma unroll
        for (int c = 0; c < CLASSES; ++c) w[c] = next[column * CLASSES + c];
    }
    double sum = 0;
    for (int start = warp * 32; start < samples; start += warps * 32) {
        const int own = start + lane;
        T own_d = 0;
        if (own < samples) own_d = i < inputs ? h * x[(size_t)own * inputs + i] : h;
        for (unsigned rest = __ballot_sync(ALL, own_d != 0); rest; rest &= rest - 1) {
            const int source = __ffs(rest) - 1;
            const int n = start + source;
            const T change = __shfl_sync(ALL, own_d, source);
            const int label = int(labels[n]);
            const T *sample_y = y + n * CLASSES, *sample_log_y = log_y + n * CLASSES;
            if (ACTIVATION == LAST) {
                T others = 0;
#pragma unroll
                for (int c = 0; c < CLASSES; ++c) others += c == column ? T(0) : sample_y[c];
                const auto moved = [&](T d) {
                    return score_change<T, CLASSES>(d, sample_y, others, sample_log_y, column,
                                                    column == label);
                };
                sum += double(moved(change) - moved(-change));
            } else {
                const size_t at = (size_t)n * outputs + column;
                const T input = z[at], odds = ACTIVATION == RELU ? T(0) : q[at];
                const T reference = next[column * CLASSES + likeliest[n]];
                const T to_label = next[column * CLASSES + label] - reference;
                const auto moved = [&](T d) {
                    const T s = activation_change<T, ACTIVATION>(d, input, odds);
                    const T change = line_change<T, CLASSES>(
                        s, w, next + column * CLASSES, reference, sample_y, sample_log_y);
                    return change - s * to_label;
                };
                sum += double(moved(change) - moved(-change));
            }
        }
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp != 0 || !inside) return;
    for (int k = 1; k < warps; ++k) sum += sums[k][lane];
    gradient[(size_t)i * outputs + j] = T(scale * sum);
}

// The activation's output, and q as `differences` takes it, rounded once. NaN comes through.
template <typename T, int ACTIVATION>
static __device__ __forceinline__ double output_of(double z, T& q) {
    if (ACTIVATION == RELU) return z < 0 ? 0.0 : z;
    const double scaled = ACTIVATION == TANH ? 2 * z : z, lowest = -double(LIMIT<T>);
    const double odds = exp(scaled < lowest ? -lowest : -scaled);
    q = T(odds);
    return ACTIVATION == TANH ? tanh(z) : 1 / (1 + odds);
}

// The pass before, in double: one block for each sample. Leaves what `differences` needs for
// either layer; arrays as there, with h (N, HIDDEN), the hidden layer's output.
//
// Each warp walks its share of the inputs 32 at a time and skips those that are 0; its lanes are
// outputs j, j + 32, ... of the hidden layer.
template <typename T, int ACTIVATION, int INPUTS, int HIDDEN, int CLASSES>
__global__ void __launch_bounds__(256) forward(
        const T* __restrict__ x, const long long* __restrict__ labels, const T* __restrict__ W1,
        const T* __restrict__ b1, const T* __restrict__ W2, const T* __restrict__ b2,
        T* __restrict__ z1, T* __restrict__ q1, T* __restrict__ h1, T* __restrict__ y,
        T* __restrict__ log_y, int* __restrict__ likeliest, double* __restrict__ losses) {
    constexpr int WARPS = 8, PER_LANE = (HIDDEN + 31) / 32;
    __shared__ double partial[WARPS][HIDDEN];
    __shared__ double hidden[HIDDEN];
    __shared__ double scores[CLASSES];
    const int n = blockIdx.x, tid = threadIdx.x, lane = tid % 32, warp = tid / 32;
    const T* row = x + (size_t)n * INPUTS;

    double sums[PER_LANE];
#pragma unroll
    for (int k = 0; k < PER_LANE; ++k) sums[k] = 0;
    for (int start = warp * 32; start < INPUTS; start += WARPS * 32) {
        const int own = start + lane;
        const T value = own < INPUTS ? row[own] : T(0);
        for (unsigned rest = __ballot_sync(ALL, value != 0); rest; rest &= rest - 1) {
            const int source = __ffs(rest) - 1;
            const double input = __shfl_sync(ALL, value, source);
            const T* weights = W1 + (size_t)(start + source) * HIDDEN;
#pragma unroll
            for (int k = 0; k < PER_LANE; ++k) {
                const int j = lane + 32 * k;
                if (j < HIDDEN) sums[k] += input * double(weights[j]);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < PER_LANE; ++k) {
        if (lane + 32 * k < HIDDEN) partial[warp][lane + 32 * k] = sums[k];
    }
    __syncthreads();
    for (int j = tid; j < HIDDEN; j += WARPS * 32) {
        double z = b1[j];
        for (int k = 0; k < WARPS; ++k) z += partial[k][j];
        const size_t at = (size_t)n * HIDDEN + j;
        z1[at] = T(z);
        hidden[j] = output_of<T, ACTIVATION>(z, q1[at]);
        h1[at] = T(hidden[j]);
    }
    __syncthreads();
    if (tid < CLASSES) {
        double z = b2[tid];
        for (int j = 0; j < HIDDEN; ++j) z += hidden[j] * double(W2[j * CLASSES + tid]);
        scores[tid] = z;
    }
    __syncthreads();
    if (tid == 0) {
        int best = 0;
        for (int c = 1; c < CLASSES; ++c) {
            if (scores[c] > scores[best]) best = c;
        }
        // Σe of all classes but the likeliest, whose e is 1.
        double rest = 0;
        for (int c = 0; c < CLASSES; ++c) {
            if (c != best) rest += exp(scores[c] - scores[best]);
        }
        const double log_total = log1p(rest);
        for (int c = 0; c < CLASSES; ++c) {
            const double own = scores[c] - scores[best] - log_total;
            y[n * CLASSES + c] = T(exp(own));
            log_y[n * CLASSES + c] = T(own);
        }
        likeliest[n] = best;
        losses[n] = log_total - (scores[labels[n]] - scores[best]);
    }
}
