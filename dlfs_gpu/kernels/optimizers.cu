// What optimizers do with a gradient, to all parameters in one launch; the formulas are those of
// optimizers.py.

enum Optimizer { MOMENTUM, NESTEROV, ADAGRAD, RMSPROP, ADAM };

static __device__ __forceinline__ float Sqrt(float x) { return sqrtf(x); }
static __device__ __forceinline__ double Sqrt(double x) { return sqrt(x); }

//   params, grads, first, second (count)   arrays; the last two are what the optimizer keeps
//   ends (count)                           numbers in the arrays up to the end of each
//   rate, a, b                             learning rate; and: momentum; –; decay, 1 − decay;
//                                          1 − β1, 1 − β2
template <typename T, int OPTIMIZER>
__global__ void step(T* const* params, const T* const* grads, T* const* first, T* const* second,
                     const long long* ends, T rate, T a, T b, T epsilon, int count) {
    const long long threads = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < ends[count - 1];
         i += threads) {
        int k = 0;
        while (i >= ends[k]) ++k;
        const long long at = k ? i - ends[k - 1] : i;
        const T g = grads[k][at];
        T& param = params[k][at];
        T& kept = first[k][at];
        if (OPTIMIZER == MOMENTUM || OPTIMIZER == NESTEROV) {
            kept = a * kept - rate * g;
            param += OPTIMIZER == NESTEROV ? a * kept - rate * g : kept;
        } else if (OPTIMIZER == ADAM) {
            T& square = second[k][at];
            kept += a * (g - kept);
            square += b * (g * g - square);
            param -= rate * kept / (Sqrt(square) + epsilon);
        } else {
            kept = OPTIMIZER == ADAGRAD ? kept + g * g : a * kept + b * (g * g);
            param -= rate * g / (Sqrt(kept) + epsilon);
        }
    }
}
