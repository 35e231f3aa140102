// What backpropagation does between matrix products: networks of any depth and width, with softmax
// cross entropy behind. The products are cuBLAS's, which also adds what the weights change by to
// the weights.
//
// Of small networks the time goes into launches, so these do what they can while they are there:
// slopes are left by the pass forward, and the pass back adds biases up as it multiplies by them.
// Sums are taken in a fixed order: the same bits in every run.

constexpr int COLUMNS = 8;      // that a block of `columns` takes: 32 bytes of floats
constexpr int GROUPS = 64;      // of samples, in such a block

// Fetch a minibatch. A block takes a sample.
//
//   x, labels (M, inputs), (M)        the data set
//   rows      (updates, gridDim.x)    the minibatches
//   batch, own (gridDim.x, inputs), (gridDim.x)   what minibatch number *update has of them
template <typename T>
__global__ void gather(const T* __restrict__ x, const long long* __restrict__ labels,
                       const long long* __restrict__ rows, T* __restrict__ batch, long long* own,
                       const int* update, int inputs) {
    const long long n = blockIdx.x, row = rows[(long long)*update * gridDim.x + n];
    for (int i = threadIdx.x; i < inputs; i += blockDim.x) {
        batch[n * inputs + i] = x[row * inputs + i];
    }
    if (threadIdx.x == 0) own[n] = labels[row];
}

// Make z + b the activation's output, in place, and leave its slope. A block takes a sample.
//
//   z, slopes (gridDim.x, width)
//   b         (width)
template <typename T, int ACTIVATION>
__global__ void activation(T* z, const T* __restrict__ b, T* __restrict__ slopes, int width) {
    const long long start = (long long)blockIdx.x * width;
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
        z[start + j] = activate<T, ACTIVATION>(z[start + j] + b[j], slopes[start + j]);
    }
}

// Make scores + b the gradient of the loss by them times scale / gridDim.x, in place; and leave the
// loss of each sample. A block is a warp, and takes a sample.
//
// With e = exp(z − max z) and rest = Σ e over the classes that are wrong, the gradient is e / Σe,
// and −rest / Σe for the label, right to rounding however sure the network is; so is the loss,
// log Σe − (z[label] − max z).
//
//   scores (gridDim.x, classes)
//   b      (classes)
//   labels, losses (gridDim.x)
template <typename T>
__global__ void softmax(T* scores, const T* __restrict__ b, const long long* __restrict__ labels,
                        T* __restrict__ losses, T scale, int classes) {
    const int lane = threadIdx.x, label = int(labels[blockIdx.x]);
    T* own = scores + (long long)blockIdx.x * classes;
    T largest = own[0] + b[0];
    for (int c = lane; c < classes; c += 32) largest = max(largest, own[c] + b[c]);
    largest = warp_max(largest);
    T rest = 0, score = 0;
    __syncwarp();
    for (int c = lane; c < classes; c += 32) {
        const T shifted = own[c] + b[c] - largest;
        own[c] = Exp(shifted);
        if (c == label) {
            score = shifted;
        } else {
            rest += own[c];
        }
    }
    rest = warp_sum(rest);
    score = __shfl_sync(ALL, score, label % 32);
    const T factor = scale / gridDim.x / (rest + Exp(score));
    for (int c = lane; c < classes; c += 32) own[c] = (c == label ? -rest : own[c]) * factor;
    if (lane == 0) losses[blockIdx.x] = Log1p(rest + Expm1(score)) - score;
}

// Multiply delta by the slopes, in place, and add its columns up: b = kept·b + Σ delta. A block of
// COLUMNS × GROUPS threads takes so many columns.
//
//   delta, slopes (samples, width)     slopes may be null
//   b             (width)              not read if `kept` is 0
//   sample_losses (samples)            null, or their mean becomes losses[*update], which ends
//                                      the update
template <typename T>
__global__ void __launch_bounds__(COLUMNS * GROUPS) columns(
        T* delta, const T* __restrict__ slopes, T* b, const T* __restrict__ sample_losses,
        T* losses, int* update, T kept, int samples, int width) {
    __shared__ T sums[GROUPS][COLUMNS];
    const int column = threadIdx.x, group = threadIdx.y;
    const int j = blockIdx.x * COLUMNS + column;
    const auto add_up = [&](T sum) {
        sums[group][column] = sum;
        for (int step = GROUPS / 2; step; step /= 2) {
            __syncthreads();
            if (group < step) sums[group][column] += sums[group + step][column];
        }
    };
    T sum = 0;
    for (int n = group; j < width && n < samples; n += GROUPS) {
        const long long at = (long long)n * width + j;
        if (slopes) delta[at] *= slopes[at];
        sum += delta[at];
    }
    add_up(sum);
    if (group == 0 && j < width) b[j] = (kept ? kept * b[j] : T(0)) + sums[0][column];
    if (!sample_losses || blockIdx.x) return;
    sum = 0;
    for (int n = group; column == 0 && n < samples; n += GROUPS) sum += sample_losses[n];
    __syncthreads();
    add_up(sum);
    if (column == 0 && group == 0) losses[(*update)++] = sums[0][0] / samples;
}
