"""Clipping of gradients by their norm against the book's loop, MXNet's utility and PyTorch's.

Each call clips to half of the norm that the gradients have at first; after the first call there
is nothing left to scale.  The rows "scaling" clip to a norm that becomes smaller with every call.
"""
import itertools

import numpy as onp
from mxnet import gluon, np

from benchmarks.run import Case
from d2l import ops

try:
    import torch
except ImportError:
    torch = None

SHAPES = [(512, 512)] * 20


def by_the_book(grads, theta):
    """Section 8.5 of the book."""
    norm = np.sqrt(sum((g ** 2).sum() for g in grads))
    if norm > theta:
        for g in grads:
            g[:] *= theta / norm


def cases():
    rng = onp.random.RandomState(0)
    start = [rng.standard_normal(s).astype('float32') for s in SHAPES]
    norm = float(onp.sqrt(sum((g.astype('float64') ** 2).sum() for g in start)))

    def provider(clip, make, scaling):
        grads = [make(g) for g in start]
        thetas = (norm / 2 * 0.9999 ** i for i in itertools.count()) if scaling \
            else itertools.repeat(norm / 2)

        def run():
            clip(grads, next(thetas))
            return grads
        return run

    def legacy(array):
        return np.array(array).as_nd_ndarray()
    for scaling in (False, True):
        providers = {
            'd2l': provider(lambda g, t: ops.global_norm_clip(g, theta=t), np.array, scaling),
            'book': provider(by_the_book, np.array, scaling),
            'mxnet': provider(gluon.utils.clip_global_norm, legacy, scaling)}
        if torch is not None:
            def torch_clip(params, theta):
                torch.nn.utils.clip_grad_norm_(params, theta)

            def parameter(array):
                made = torch.zeros(array.shape, requires_grad=True)
                made.grad = torch.tensor(array)
                return made
            providers['torch'] = provider(torch_clip, parameter, scaling)

        def check(results):
            for name, found in results.items():
                for g, s in zip(found, start):
                    g = g.grad.numpy() if name == 'torch' else g.asnumpy()
                    assert onp.abs(g - s / 2).max() <= 1e-5, name
        size = sum(g.nbytes for g in start)
        yield Case('20 x 512x512' + (' scaling' if scaling else ''), providers, check,
                   nbytes=size * (3 if scaling else 1))
