"""PyTorch."""

from __future__ import annotations

import importlib
import itertools
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Device, GradientPeer, Job, Peer, TrainingPeer
from benchmarks.work import Work


class _Torch(Peer):
    def __init__(self, work: Work, device: Device) -> None:
        super().__init__(work, device)
        # Imported by name: torch may not be there, and its type hints are no part of this.
        self.torch: Any = importlib.import_module("torch")
        self.functional = self.torch.nn.functional
        self.place = "cuda" if device == "GPU" else "cpu"
        self.activation = getattr(self.torch, work.activation)

    def tensor(self, array: Any, dtype: Any = None) -> Any:
        """Put an array on the device."""
        return self.torch.asarray(array, dtype=dtype, device=self.place)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "GPU":
            self.torch.cuda.synchronize()

    def loss(self, params: list[Any], x: Any, t: Any) -> Any:
        """Return the loss, as a function of the parameters."""
        linear = self.functional.linear
        *hidden, (W, b) = zip(params[::2], params[1::2], strict=True)
        for V, c in hidden:
            x = self.activation(linear(x, V, c))
        return self.functional.cross_entropy(linear(x, W, b), t)

    def params(self) -> list[Any]:
        """Return W and b of each layer, W transposed as PyTorch keeps it."""
        arrays = [array for W, b in self.work.weights() for array in (W.T.copy(), b)]
        return [self.tensor(array, self.torch.float32) for array in arrays]


class EagerTraining(_Torch, TrainingPeer):
    """Modules, autograd and `torch.optim.SGD`."""

    def __init__(self, work: Work, device: Device) -> None:
        super().__init__(work, device)
        nn = self.torch.nn
        activation = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}[work.activation]
        layers: list[Any] = []
        for n, m in itertools.pairwise(work.sizes):
            layers += [nn.Linear(n, m), activation()]
        self.model = nn.Sequential(*layers[:-1]).to(self.place)
        with self.torch.no_grad():
            for mine, start in zip(self.model.parameters(), self.params(), strict=True):
                mine.copy_(start)
        self.optimizer = self.torch.optim.SGD(self.model.parameters(), lr=work.lr)
        self.x, self.t = map(self.tensor, work.images())

    def run(self, job: Job) -> list[Any]:
        """Train."""
        losses = []
        for rows in self.tensor(job):
            self.optimizer.zero_grad()
            loss = self.functional.cross_entropy(self.model(self.x[rows]), self.t[rows])
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        return losses


class CompiledTraining(_Torch, TrainingPeer):
    """The whole update, gather included, as one function through `torch.compile`.

    It is the fastest of the forms tried: compiling the model alone took longer than eager, and
    on the CPU the wrapper in C++ saves half of what is left. On a GPU CUDA graphs are asked for.
    """

    def __init__(self, work: Work, device: Device) -> None:
        super().__init__(work, device)
        torch, lr = self.torch, work.lr
        torch._dynamo.reset()
        self.x, self.t = map(self.tensor, work.images())
        self.weights = self.params()

        def step(params: list[Any], x: Any, t: Any, rows: Any) -> Any:
            grads, loss = torch.func.grad_and_value(self.loss)(params, x[rows], t[rows])
            for param, grad in zip(params, grads, strict=True):
                param.sub_(grad, alpha=lr)
            return loss

        if device == "GPU":
            self.step = torch.compile(step, fullgraph=True, mode="reduce-overhead")
        else:
            self.step = torch.compile(step, fullgraph=True, options={"cpp_wrapper": True})

    def run(self, job: Job) -> list[Any]:
        """Train."""
        losses = []
        with self.torch.no_grad():
            for rows in self.tensor(job):
                loss = self.step(self.weights, self.x, self.t, rows)
                # CUDA graphs write each loss where the last one was.
                losses.append(loss.clone() if self.device == "GPU" else loss)
        return losses


class VmapGradient(_Torch, GradientPeer):
    """`torch.func.vmap` over perturbations of all parameters as one vector."""

    elements = 1000
    # What was fastest of 10 to 1,000 on two cores; a GPU takes all at once.
    chunks: ClassVar[dict[Device, int]] = {"CPU": 50, "GPU": 1000}

    def __init__(self, work: Work, device: Device) -> None:
        super().__init__(work, device)
        self.x, self.t = map(self.tensor, work.minibatch())
        # As NumPy lays them out, so that an element is the same one everywhere.
        self.flat = self.tensor(work.flat_weights(), self.torch.float32)
        self.shapes = [array.shape for layer in work.weights() for array in layer]
        self.sizes = [int(np.prod(shape)) for shape in self.shapes]

    def flat_loss(self, flat: Any) -> Any:
        """Return the loss for all parameters in one vector."""
        parts = zip(flat.split(self.sizes), self.shapes, strict=True)
        params = [part.view(shape).mT if len(shape) == 2 else part for part, shape in parts]
        return self.loss(params, self.x, self.t)

    def run(self, job: Job) -> Any:
        """Differentiate."""
        h = self.work.h
        losses = self.torch.func.vmap(self.flat_loss)
        parts = []
        with self.torch.no_grad():
            for elements in self.tensor(job).split(self.chunks[self.device]):
                step = self.torch.zeros(len(elements), len(self.flat), device=self.place)
                step.scatter_(1, elements[:, None], h)
                parts.append((losses(self.flat + step) - losses(self.flat - step)) / (2 * h))
        return self.torch.cat(parts)

    def values(self, results: Any) -> NDArray[np.float64]:
        """Return the derivatives."""
        return np.asarray(results.cpu(), dtype=np.float64)
