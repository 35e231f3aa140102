// What the kernels share: it comes before each of their sources.

enum Activation { LAST, SIGMOID, TANH, RELU };
constexpr unsigned ALL = 0xffffffffu;

static __device__ __forceinline__ float Exp(float x) { return expf(x); }
static __device__ __forceinline__ double Exp(double x) { return exp(x); }
static __device__ __forceinline__ float Expm1(float x) { return expm1f(x); }
static __device__ __forceinline__ double Expm1(double x) { return expm1(x); }
static __device__ __forceinline__ float Log(float x) { return logf(x); }
static __device__ __forceinline__ double Log(double x) { return log(x); }
static __device__ __forceinline__ float Log1p(float x) { return log1pf(x); }
static __device__ __forceinline__ double Log1p(double x) { return log1p(x); }
static __device__ __forceinline__ float Tanh(float x) { return tanhf(x); }
static __device__ __forceinline__ double Tanh(double x) { return tanh(x); }

// An activation's output, and its slope, where no digits are lost by subtracting. Below −88 (−709
// in double) exp(−z) would overflow. NaN comes through.
template <typename T, int ACTIVATION>
static __device__ __forceinline__ T activate(T z, T& slope) {
    if (ACTIVATION == SIGMOID) {
        const T lowest = sizeof(T) == 4 ? -88 : -709;
        const T q = Exp(z < lowest ? -lowest : -z);
        const T out = 1 / (1 + q);
        slope = out * (out * q);
        return out;
    }
    if (ACTIVATION == TANH) {
        const T q = Exp(-2 * abs(z));
        slope = 4 * q / ((1 + q) * (1 + q));
        return Tanh(z);
    }
    slope = z > 0 ? T(1) : T(0);
    return z < 0 ? T(0) : z;
}

template <typename T>
static __device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int step = 16; step; step /= 2) value += __shfl_xor_sync(ALL, value, step);
    return value;
}

template <typename T>
static __device__ __forceinline__ T warp_max(T value) {
#pragma unroll
    for (int step = 16; step; step /= 2) value = max(value, __shfl_xor_sync(ALL, value, step));
    return value;
}
