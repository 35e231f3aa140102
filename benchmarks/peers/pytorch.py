"""PyTorch."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import numpy as np

from benchmarks.work import Array, Do, Job, Work

# Imported by name, so that mypy takes it as it is.
torch: Any = importlib.import_module("torch")


def eager_training(work: Work, gpu: bool) -> Do:
    """Modules, autograd and `torch.optim.SGD`."""
    device = "cuda" if gpu else "cpu"
    activation = {"sigmoid": torch.nn.Sigmoid, "relu": torch.nn.ReLU}[work.activation]
    layers: list[Any] = []
    for n, m in itertools.pairwise(work.sizes):
        layers += [torch.nn.Linear(n, m), activation()]
    model = torch.nn.Sequential(*layers[:-1]).to(device)
    with torch.no_grad():
        for param, start in zip(model.parameters(), _params(work, device), strict=True):
            param.copy_(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=work.lr)
    x, t = (torch.asarray(array, device=device) for array in work.images())

    def do(job: Job) -> Array:
        losses = []
        for rows in torch.asarray(job, device=device):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x[rows]), t[rows])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return _on_host(torch.stack(losses))

    return do


def compiled_training(work: Work, gpu: bool) -> Do:
    """`torch.compile` of the whole update, gather included, as one function.

    It is the fastest of the forms tried: compiling the model alone took longer than eager, and
    on the CPU the wrapper in C++ saves half of what is left. On a GPU CUDA graphs are asked for.
    """
    device = "cuda" if gpu else "cpu"
    x, t = (torch.asarray(array, device=device) for array in work.images())
    params = _params(work, device)

    def step(params: list[Any], x: Any, t: Any, rows: Any) -> Any:
        grad_and_value = torch.func.grad_and_value(_loss)
        grads, loss = grad_and_value(params, x[rows], t[rows], work.activation)
        for param, grad in zip(params, grads, strict=True):
            param.sub_(grad, alpha=work.lr)
        return loss

    torch._dynamo.reset()
    options = {"mode": "reduce-overhead"} if gpu else {"options": {"cpp_wrapper": True}}
    compiled = torch.compile(step, fullgraph=True, **options)

    def do(job: Job) -> Array:
        losses = []
        with torch.no_grad():
            for rows in torch.asarray(job, device=device):
                loss = compiled(params, x, t, rows)
                # CUDA graphs write each loss where the last one was.
                losses.append(loss.clone() if gpu else loss)
        return _on_host(torch.stack(losses))

    return do


def vmap_gradient(work: Work, gpu: bool) -> Do:
    """`torch.func.vmap` over perturbations of all variables as one vector."""
    device = "cuda" if gpu else "cpu"
    x, t = (torch.asarray(array, device=device) for array in work.minibatch())
    # As NumPy lays them out, so that an element is the same one everywhere.
    variables = work.variables()
    flat = np.concatenate([array.ravel() for array in variables])
    point = torch.asarray(flat, dtype=torch.float32, device=device)
    sizes = [array.size for array in variables]
    fixed = _params(work, device)[len(variables) :]
    # What was fastest of 10 to 1,000 on two cores; a GPU takes all at once.
    chunk = 1000 if gpu else 50

    def flat_loss(flat: Any) -> Any:
        parts = zip(flat.split(sizes), variables, strict=True)
        params = [part.view(array.shape) for part, array in parts]
        return _loss([p.mT if p.ndim == 2 else p for p in params] + fixed, x, t, work.activation)

    def do(job: Job) -> Array:
        losses = torch.func.vmap(flat_loss)
        grads = []
        with torch.no_grad():
            for elements in torch.asarray(job, device=device).split(chunk):
                step = torch.zeros(len(elements), len(point), device=device)
                step.scatter_(1, elements[:, None], work.h)
                grads.append((losses(point + step) - losses(point - step)) / (2 * work.h))
        return _on_host(torch.cat(grads))

    return do


def _loss(params: list[Any], x: Any, t: Any, activation: str) -> Any:
    """Return the loss, as a function of the parameters."""
    *hidden, (W, b) = zip(params[::2], params[1::2], strict=True)
    for V, c in hidden:
        x = getattr(torch, activation)(torch.nn.functional.linear(x, V, c))
    return torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, W, b), t)


def _params(work: Work, device: str) -> list[Any]:
    """Return W1, b1, W2, b2, ..., W transposed as PyTorch keeps it."""
    arrays = [array.T.copy() for array in work.weights()]
    return [torch.asarray(array, dtype=torch.float32, device=device) for array in arrays]


def _on_host(tensor: Any) -> Array:
    return np.asarray(tensor.cpu(), dtype=np.float64)
