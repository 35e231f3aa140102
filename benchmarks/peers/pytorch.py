"""PyTorch."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import numpy as np

from benchmarks.peers import GradientPeer, Job, Peer, TrainingPeer, Values
from benchmarks.work import Work


class _Torch(Peer):
    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        # Imported by name: torch may not be there, and its type hints are no part of this.
        self.torch: Any = importlib.import_module("torch")
        self.functional = self.torch.nn.functional
        self.device = "cuda" if gpu else "cpu"
        self.activation = getattr(self.torch, work.activation)

    def tensor(self, array: Any, dtype: Any = None) -> Any:
        """Put an array on the device."""
        return self.torch.asarray(array, dtype=dtype, device=self.device)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.gpu:
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
        return [self.tensor(array.T.copy(), self.torch.float32) for array in self.work.weights()]


class EagerTraining(_Torch, TrainingPeer):
    """Modules, autograd and `torch.optim.SGD`."""

    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        nn = self.torch.nn
        activation = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}[work.activation]
        layers: list[Any] = []
        for n, m in itertools.pairwise(work.sizes):
            layers += [nn.Linear(n, m), activation()]
        self.model = nn.Sequential(*layers[:-1]).to(self.device)
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

    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        torch, lr = self.torch, work.lr
        torch._dynamo.reset()
        self.x, self.t = map(self.tensor, work.images())
        self.weights = self.params()

        def step(params: list[Any], x: Any, t: Any, rows: Any) -> Any:
            grads, loss = torch.func.grad_and_value(self.loss)(params, x[rows], t[rows])
            for param, grad in zip(params, grads, strict=True):
                param.sub_(grad, alpha=lr)
            return loss

        if gpu:
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
                losses.append(loss.clone() if self.gpu else loss)
        return losses


class VmapGradient(_Torch, GradientPeer):
    """`torch.func.vmap` over perturbations of all variables as one vector."""

    elements = 1000

    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        self.x, self.t = map(self.tensor, work.minibatch())
        # As NumPy lays them out, so that an element is the same one everywhere.
        variables = work.variables()
        flat = np.concatenate([array.ravel() for array in variables])
        self.flat = self.tensor(flat, self.torch.float32)
        self.shapes = [array.shape for array in variables]
        self.sizes = [array.size for array in variables]
        self.fixed = self.params()[len(variables) :]
        # What was fastest of 10 to 1,000 on two cores; a GPU takes all at once.
        self.chunk = 1000 if gpu else 50

    def flat_loss(self, flat: Any) -> Any:
        """Return the loss for all variables in one vector."""
        parts = zip(flat.split(self.sizes), self.shapes, strict=True)
        params = [part.view(shape).mT if len(shape) == 2 else part for part, shape in parts]
        return self.loss(params + self.fixed, self.x, self.t)

    def run(self, job: Job) -> Any:
        """Differentiate."""
        h = self.work.h
        losses = self.torch.func.vmap(self.flat_loss)
        parts = []
        with self.torch.no_grad():
            for elements in self.tensor(job).split(self.chunk):
                step = self.torch.zeros(len(elements), len(self.flat), device=self.device)
                step.scatter_(1, elements[:, None], h)
                parts.append((losses(self.flat + step) - losses(self.flat - step)) / (2 * h))
        return self.torch.cat(parts)

    def values(self, results: Any) -> Values:
        """Return the derivatives."""
        return super().values(results.cpu())
