"""The checks of the CUDA kernels, for the emulator and for a GPU alike: truth is numpy's float64.

A check runs an operator forward and backward on fresh arrays and raises when something is wrong.
``quick()`` lists enough of them to find planted faults, ``full()`` all.

    python tests/gpu/battery.py LIBRARY [--fault N] quick shifted    # with emulated kernels
"""
import argparse
import ctypes

import numpy as np
from checks import (
    TOLERANCES,
    UPDATES,
    check_activation,
    check_add_norm,
    check_batch_dot,
    check_bias_activation,
    check_conv2d,
    check_dropout,
    check_embedding,
    check_global_norm_clip,
    check_layer_norm,
    check_masked_softmax,
    check_masked_softmax_ce,
    check_special_rows,
    check_update,
)
from checks_attention import check_additive_attention, check_attention
from checks_dense import check_dense, check_multi_dense
from checks_positions import check_positional_encoding
from driver import Guarded, Library


class Check:
    """A check with its arguments; shift: how many elements past their alignment arrays start."""

    def __init__(self, function, shift=0, **arguments):
        self.function, self.shift, self.arguments = function, shift, arguments

    def __str__(self):
        words = [self.function.__name__.replace('check_', '')]
        words += [str(v).replace(' ', '') for v in self.arguments.values()]
        return ' '.join(words + ['shifted'] * self.shift)

    def run(self, library, backend, target='cuda'):
        """backend: a class, or function, that takes the shift."""
        return self.function(library, backend(shift=self.shift), target, **self.arguments)


def norm(shape, dtype='float32', **kwargs):
    return Check(check_layer_norm, shape=shape, dtype=dtype, **kwargs)


def softmax(shape, dtype='float32', **kwargs):
    return Check(check_masked_softmax, shape=shape, dtype=dtype, **kwargs)


def activation(shape, dtype='float32', **kwargs):
    return Check(check_activation, shape=shape, dtype=dtype, **kwargs)


def bias_activation(shape, dtype='float32', **kwargs):
    return Check(check_bias_activation, shape=shape, dtype=dtype, **kwargs)


def entropy(shape, dtype='float32', **kwargs):
    return Check(check_masked_softmax_ce, shape=shape, dtype=dtype, **kwargs)


def embedding(shape, dtype='float32', **kwargs):
    return Check(check_embedding, shape=shape, dtype=dtype, **kwargs)


def drop(shape, dtype='float32', **kwargs):
    return Check(check_dropout, shape=shape, dtype=dtype, **kwargs)


def sum_norm(shape, dtype='float32', **kwargs):
    return Check(check_add_norm, shape=shape, dtype=dtype, **kwargs)


def attention(sizes, dtype='float32', **kwargs):
    return Check(check_attention, sizes=sizes, dtype=dtype, **kwargs)


def additive(sizes, dtype='float32', **kwargs):
    return Check(check_additive_attention, sizes=sizes, dtype=dtype, **kwargs)


def conv(shape, dtype='float32', **kwargs):
    return Check(check_conv2d, shape=shape, dtype=dtype, **kwargs)


def product(sizes, dtype='float32', **kwargs):
    return Check(check_batch_dot, sizes=sizes, dtype=dtype, **kwargs)


def dense(shape, dtype='float32', **kwargs):
    return Check(check_dense, shape=shape, dtype=dtype, **kwargs)


def layers(shape, dtype='float32', **kwargs):
    return Check(check_multi_dense, shape=shape, dtype=dtype, **kwargs)


def positions(shape, dtype='float32', **kwargs):
    return Check(check_positional_encoding, shape=shape, dtype=dtype, **kwargs)


# More arrays than one launch takes, and arrays of several blocks.
SIZES = (1, 0, 33, 40000, 16384, 16385) + tuple(range(60)) + (513,)


def updates(sizes=SIZES, **kwargs):
    """Every operator that updates lists, in every precision."""
    checks = [Check(check_global_norm_clip, sizes=sizes, theta=theta, divisor=divisor, **kwargs)
              for theta in (0.5, 1e9) for divisor in (False, True)]
    for op in UPDATES:
        checks += [Check(check_update, op=op, sizes=sizes, dtype=dtype, mixed=mixed, **kwargs)
                   for dtype, mixed in (('float32', False), ('float32', True), ('float16', False),
                                        ('float64', False))]
    return checks


ACT_TYPES = ('exp', 'gelu', 'relu', 'sigmoid', 'tanh')

# One length for each way in which a row is spread over threads (see run_by_row in cuda.h).
PLAN_COLS = (100, 256, 512, 1024, 2048, 4096, 8192, 8193)


def quick():
    """Every kernel and plan once, in packs and in scalars."""
    checks = []
    for cols in PLAN_COLS:
        rows = 29 if cols <= 512 else 7
        for dtype, c in (('float32', cols), ('float16', cols), ('float32', cols - 1)):
            checks += [norm((rows, c), dtype), softmax((rows, c), dtype)]
            checks += [entropy((2, rows // 2, c), dtype), sum_norm((rows // 4 + 1, c), dtype)]
    for dtype in ('float32', 'float16'):
        checks += [norm((5, 256), dtype, shift=1), softmax((5, 256), dtype, shift=1),
                   entropy((2, 3, 256), dtype, shift=1), embedding((5, 7), dtype, shift=1),
                   embedding((5, 7), dtype), embedding((6, 90), dtype, cols=33),
                   sum_norm((5, 256), dtype, shift=1), drop((3, 1500), dtype, shift=1)]
    for dtype in TOLERANCES:
        checks += [activation((7, 301), dtype, act_type=name) for name in ACT_TYPES]
        checks += [bias_activation((67, 45), dtype, act_type=name) for name in ACT_TYPES]
    checks += [activation((3, 4096), shift=1), bias_activation((300, 33)),
               activation((0, 3)), bias_activation((0, 33)), bias_activation((3, 0))]
    checks += [entropy((3, 5, 130), 'float64', number_dtype='float32'), entropy((0, 3, 5)),
               entropy((2, 0, 5)), embedding((3, 100), 'float64', number_dtype='float64'),
               embedding((4, 5), vocab=1, without=(2,)), embedding((4, 5), without=(3, 4)),
               embedding((700,), vocab=70000, cols=5), embedding((0, 5)), embedding((5, 0))]
    for train in (True, False):
        checks += [drop((9000,), 'float64', train=train), drop((5, 100), 'float16', train=train),
                   drop((2, 5, 333), train=train), sum_norm((5, 130), 'float64', train=train),
                   sum_norm((5, 130), train=train)]
    return checks + [norm((67, 130), 'float64'), softmax((5, 130), 'float64'),
                     Check(check_special_rows, cols=40),
                     softmax((3, 5, 33), len_ndim=2, len_dtype='float32'),
                     norm((0, 33)), softmax((2, 0, 33)), sum_norm((0, 33)), drop((0, 33)),
                     attention((2, 2, 37, 70, 40, 70), len_ndim=2, causal=True, dropout=0.25),
                     attention((1, 3, 33, 40, 5, 3), 'float64', dropout=0.5),
                     attention((2, 1, 3, 65, 33, 32), 'float16'),
                     additive((2, 37, 70, 33, 70), len_ndim=2, dropout=0.25),
                     additive((3, 1, 5, 70, 3), 'float64', dropout=0.5),
                     additive((2, 3, 33, 2, 5), 'float16'),
                     conv((3, 2, 9, 14)), conv((2, 3, 6, 5), 'float64', bias=False),
                     conv((2, 1, 5, 7), 'float16', channels=2, kernel=4, padding=3),
                     conv((0, 2, 5, 5)), conv((2, 0, 5, 5)),
                     product((2, 67, 35, 130), transpose_a=True, transpose_b=True),
                     product((3, 5, 16, 64), 'float64', transpose_b=True),
                     product((40, 3, 17, 2), 'float16', transpose_a=True),
                     product((2, 3, 0, 5)),
                     dense((2, 67, 35), units=130), dense((70, 17), act_type='relu', bias=False),
                     dense((300, 5), 'float64', units=3, act_type='sigmoid'),
                     dense((3, 40), 'float16', units=33, act_type=None),
                     dense((67, 3), 'float16', act_type='sigmoid'),
                     dense((0, 3)), dense((3, 0)), dense((9,), units=1, act_type=None, bias=False),
                     layers((2, 67, 35), units=130), layers((300, 5), 'float64', biases=(1,)),
                     layers((70, 17), layers=2, biases=()), layers((0, 3)), layers((3, 0)),
                     layers((67, 40), 'float16', layers=2, biases=(0, 1), units=33),
                     positions((2, 67, 3), past=(3, 5), num_hiddens=33),
                     positions((2, 70), 'float64', past=(1, 1000, 2), num_hiddens=64),
                     positions((0, 40), 'float16', num_hiddens=7, data_dtype='float16'),
                     positions((2, 0)), positions((2, 3), num_hiddens=1)] + updates()


def shifted():
    """Arrays that are not aligned for packs, of lengths that would allow them."""
    kinds = [(dtype, cols) for dtype in ('float32', 'float16', 'float64')
             for cols in (1, 33, 128, 256, 512, 1024, 2048, 8192)]
    checks = [make((5, cols), dtype, shift=1)
              for make in (norm, softmax, activation, bias_activation, sum_norm, drop)
              for dtype, cols in kinds]
    checks += [entropy((2, 3, cols), dtype, shift=1) for dtype, cols in kinds]
    checks += [attention((1, 2, 33, 34, 8, 8), dtype, causal=True, shift=1)
               for dtype in ('float32', 'float16', 'float64')]
    checks += [additive((2, 33, 34, 8, 8), dtype, shift=1) for dtype in TOLERANCES]
    checks += [conv((2, 2, 8, 8), dtype, shift=1) for dtype in TOLERANCES]
    checks += [product((2, 9, 20, 8), dtype, shift=1) for dtype in TOLERANCES]
    checks += [dense((9, 20), dtype, units=8, shift=1) for dtype in TOLERANCES]
    checks += [layers((9, 20), dtype, units=8, shift=1) for dtype in TOLERANCES]
    checks += [positions((2, 40), dtype, past=(2, 3), num_hiddens=31, shift=1)
               for dtype in TOLERANCES]
    checks += updates((5, 700), shift=1)
    return checks + [embedding((3, 5), dtype, cols=cols, shift=1) for dtype, cols in kinds]


def full():
    """quick(), shifted(), and the sizes and values that bite."""
    checks = quick() + shifted()
    for dtype in ('float32', 'float16', 'float64'):
        for cols in (0, 1, 2, 31, 32, 33, 127, 128, 129, 255, 257, 511, 513, 1000, 1023, 1025):
            checks += [norm((5, cols), dtype), softmax((5, cols), dtype)]
            checks += [activation((cols,), dtype), bias_activation((5, cols), dtype)]
            checks += [entropy((2, 3, max(cols, 1)), dtype, smoothing=0),
                       embedding((3, 5), dtype, cols=cols)]
        for cols in (0, 1, 31, 33, 127, 128, 129, 1000, 1025):
            checks += [sum_norm((5, cols), dtype), drop((5, cols), dtype)]
    checks += [drop((70000,), p=p) for p in (0.0, 0.1, 0.999)]
    checks += [drop((4095,)), drop((4097,)), sum_norm((64,)), sum_norm((300, 33), p=0.0),
               sum_norm((2, 3, 5, 24), p=0.9), sum_norm((61, 1000), 'float16')]
    for cols in (2047, 2052, 4095, 4100, 8191, 9000):
        checks += [norm((4, cols)), softmax((4, cols))]
        checks += [norm((2, cols), 'float16'), softmax((2, cols), 'float16')]
    for rows in (1, 2, 11, 12, 13, 61):
        checks += [norm((rows, 96)), softmax((rows, 96)), norm((rows, 1000), 'float16')]
    checks += [softmax((70001, 1)), norm((300, 33), 'float64')]
    checks += [norm((64,)), norm((2, 3, 5, 24)), norm((3, 0)), norm((0, 0)), norm((0,)),
               norm((9, 300), eps=0.1), norm((9, 300), mean=1000.0),
               norm((9, 2000), mean=-1000.0), norm((5, 8200), mean=1000.0),
               norm((9, 2000), 'float64', mean=1e6)]
    checks += [bias_activation((rows, 33), 'float16') for rows in (1, 15, 16, 17, 31, 32, 33, 9000)]
    checks += [bias_activation((64,)), bias_activation((2, 3, 5, 24)),
               activation((700001,)), activation((2, 3, 5, 7), 'float64')]
    checks += [embedding((17, 31), vocab=n, cols=9) for n in (1, 2, 255, 256, 257, 65536, 65537)]
    checks += [embedding((5,)), embedding((2, 2, 3)), embedding((3, 4), extra=0),
               embedding((2, 3), without=(2, 3, 4)), entropy((300, 2, 3)), entropy((1, 300, 3))]
    checks += [softmax((0, 5)), softmax((0, 3, 5)), softmax((3, 0)), softmax((2, 3, 0)),
               softmax((2, 0, 3, 7)), softmax((2, 4, 3, 17)), softmax((4, 7, 31)),
               softmax((3, 7, 9000), len_ndim=2)]
    for len_dtype in ('float16', 'float32', 'float64', 'uint8', 'int8', 'int32', 'int64'):
        checks += [positions((2, 3), data_dtype=len_dtype),
                   entropy((9, 7, 30), number_dtype=len_dtype),
                   embedding((9, 7), vocab=30, number_dtype=len_dtype),
                   softmax((16, 100), len_dtype=len_dtype),
                   softmax((4, 5, 21), len_ndim=2, len_dtype=len_dtype)]
    for sizes in ((1, 1, 1, 1, 1, 1), (2, 3, 32, 32, 32, 64), (1, 2, 31, 33, 65, 1),
                  (1, 1, 64, 128, 3, 130), (3, 2, 5, 0, 4, 4), (2, 2, 0, 5, 4, 4),
                  (0, 2, 5, 5, 4, 4), (2, 2, 5, 6, 0, 4), (2, 2, 5, 6, 4, 0)):
        for dtype in ('float32', 'float16', 'float64'):
            for len_ndim in (1, 2):
                checks.append(attention(sizes, dtype, len_ndim=len_ndim, causal=len_ndim == 1,
                                        dropout=0.5 * (len_ndim == 2)))
    for sizes in ((1, 1, 1, 1, 1), (2, 32, 32, 32, 64), (1, 31, 33, 65, 1), (1, 64, 96, 3, 130),
                  (3, 5, 0, 4, 4), (2, 0, 5, 4, 4), (0, 5, 5, 4, 4), (2, 5, 6, 0, 4),
                  (2, 5, 6, 4, 0)):
        checks += [additive(sizes, dtype, len_ndim=len_ndim, dropout=0.5 * (len_ndim == 2))
                   for dtype in TOLERANCES for len_ndim in (1, 2)]
    for dtype in TOLERANCES:
        checks += [conv((1, 1, 1, 1), dtype, channels=1, kernel=1, padding=0),
                   conv((2, 1, 28, 28), dtype, channels=6, kernel=5, padding=2),
                   conv((2, 6, 14, 14), dtype, channels=16, kernel=5, padding=0),
                   conv((1, 2, 1, 1), dtype), conv((70, 1, 4, 33), dtype, bias=False)]
        checks += [dense(shape, dtype, units=units, act_type=act_type, bias=bias)
                   for shape, units in (((1, 1), 1), ((65, 16), 64), ((2, 33, 2, 5), 31))
                   for act_type in (None, 'relu', 'sigmoid', 'tanh') for bias in (True, False)]
        checks += [layers(shape, dtype, units=units, layers=n, biases=biases)
                   for shape, units in (((1,), 1), ((65, 16), 64), ((2, 33, 2, 5), 31))
                   for n, biases in ((2, ()), (2, (1,)), (3, (0, 1, 2)), (3, (2,)))]
        checks += [positions((1, 9), dtype, past=(2, 100000), num_hiddens=n)
                   for n in (1, 2, 31, 32, 33, 1023)]
        checks += [positions((3, steps, 2), dtype) for steps in (1, 31, 32, 33, 500)]
    for dtype in ('float32', 'float16', 'float64'):
        for cols in (40, 400, 1500, 9000):
            checks.append(Check(check_special_rows, dtype=dtype, cols=cols))
    checks += [Check(check_update, op=op, sizes=sizes, attrs=False)
               for op in UPDATES for sizes in ((1,), (0,), (0, 7, 0))]
    checks += [Check(check_global_norm_clip, sizes=(7, 300), bad=bad)
               for bad in (np.nan, np.inf, -np.inf)]
    checks += [Check(check_global_norm_clip, sizes=(0,)), Check(check_global_norm_clip, sizes=(9,),
                                                                theta=0.0)]
    return checks


def main(argv=None):
    parser = argparse.ArgumentParser(description='Checks emulated kernels.')
    parser.add_argument('library')
    parser.add_argument('sets', nargs='+', choices=['quick', 'shifted', 'full'])
    parser.add_argument('--fault', type=int, default=0, help='of a library with planted faults')
    args = parser.parse_args(argv)
    library = Library(args.library)
    if args.fault:
        ctypes.c_int.in_dll(library.c, 'd2l_fault').value = args.fault
    checks = [check for name in args.sets for check in globals()[name]()]
    for check in checks:
        check.run(library, Guarded)
    print(len(checks), 'checks passed')


if __name__ == '__main__':
    main()
