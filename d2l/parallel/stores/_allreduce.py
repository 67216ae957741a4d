"""What the stores without a server share: sums over devices, then over workers, in buckets."""
import zlib

import mxnet as mx
import numpy as np

from d2l.parallel.stores import Store
from d2l.parallel.stores._fuse import Bucket, flat, plain, plan

# A ring of N workers takes 2 (N - 1) messages for each bucket: from here on their latency (50 us)
# counts for less than the bytes that they carry at 10 Gbit/s.
BUCKET_BYTES, BUCKET_BYTES_PER_WORKER = 4 << 20, 64 << 10


class AllReduceStore(Store):
    """A store that adds gradients up over all devices of all workers; optimizers stay with them.

    Works over a transport with rank, size, on_host (arrays must lie in the host's memory),
    start(array, name) -> handle and wait(handle), which sum a vector over all ranks in place (name
    is the same on all ranks, and another one for each vector of a step), broadcast(array) of rank
    0's vector, barrier() and close().

    All workers must make the same calls in the same order, with the same shapes and dtypes.
    """

    def __init__(self, name, transport, bucket_bytes=None):
        if bucket_bytes is None:
            bucket_bytes = max(BUCKET_BYTES, BUCKET_BYTES_PER_WORKER * transport.size)
        if bucket_bytes < 1:
            raise ValueError(f'{name}: bucket_bytes must be at least 1, got {bucket_bytes}')
        self._name, self._transport, self._bucket_bytes = name, transport, int(bucket_bytes)
        self._half = None
        self._buckets, self._agreed = {}, {}

    @property
    def type(self):
        """'dist_' and the name: what gluon.Trainer takes for a store of several workers."""
        return 'dist_' + self._name

    @property
    def rank(self):
        """This worker's number, from 0."""
        return self._transport.rank

    @property
    def num_workers(self):
        """The number of workers."""
        return self._transport.size

    @staticmethod
    def is_capable(capability):
        """False for 'optimizer': every worker updates its own weights, with the same sums."""
        if capability.lower() == Store.OPTIMIZER:
            return False
        raise ValueError(f'is_capable: capability must be {Store.OPTIMIZER!r}, got {capability!r}')

    def set_gradient_compression(self, compression_params):
        """{'type': 'fp16'} halves the traffic: gradients travel and are summed as float16.

        They are divided by the number of workers, rounded up to a power of two, on the way: a sum
        is infinite only where a worker's own gradient times that quotient leaves float16
        (65504), and what is below 6e-8 of it is lost.  Other types raise ValueError.
        """
        kind = compression_params.get('type')
        unknown = sorted(set(compression_params) - {'type'})
        if kind == '2bit':
            raise ValueError(f"{self._name}: compression type must be 'fp16', got '2bit', which "
                             'only a parameter server can add up: use dist_sync')
        if kind != 'fp16' or unknown:
            raise ValueError(f"{self._name}: compression must be {{'type': 'fp16'}}, got "
                             f'{compression_params}')
        self._half = 1 << (self.num_workers - 1).bit_length()
        self._buckets.clear()

    def broadcast(self, key, value, out, priority=0):
        """Write rank 0's value into out, an array or a list of them, on all workers."""
        value = _listed(value)[0]
        self._check_dense(key, [value])
        if not value.size:
            return
        vector = flat(plain(value)).as_in_context(mx.cpu())
        self._transport.broadcast(vector)
        for array in _listed(out):
            vector.reshape(array.shape).copyto(array.as_nd_ndarray())

    def pushpull(self, key, value, out=None, priority=0):
        """Sum value, an array or a list with one for each device, over all devices and workers.

        The sum goes to out (default: into value).  One all-reduce for each call: for many keys
        use `pushpull_all`.
        """
        self.pushpull_all([key], [value], None if out is None else [out])

    def pushpull_all(self, keys, values, outs=None):
        """`pushpull` for many keys, with few all-reduces.

        keys: a list; values, outs: lists of arrays, or of lists with one array for each device.
        Small arrays are fused into buckets, from the last key to the first: while a bucket
        travels, MXNet may still compute the gradients of the next.  Returns when all sums have
        arrived; nothing is held back for a later call.
        """
        values = [_listed(value) for value in values]
        outs = values if outs is None else [_listed(out) for out in outs]
        name, buckets = self._buckets_of(keys, values, outs)
        handles = [self._transport.start(bucket.pack(), f'{name}.{i}')
                   for i, bucket in enumerate(buckets)]
        for bucket, handle in zip(buckets, handles):
            self._transport.wait(handle)
            bucket.unpack()

    def sum(self, numbers):
        """Sums of a few numbers over all workers; see `Store.sum`."""
        vector = mx.nd.array(numbers, ctx=mx.cpu(), dtype='float64')
        self._transport.wait(self._transport.start(vector, 'numbers'))
        return vector.asnumpy()

    def barrier(self):
        """Wait for all workers."""
        self._transport.barrier()

    def close(self):
        """Leave the other workers; they get an error if they still need this one."""
        self._transport.close()

    def _buckets_of(self, keys, values, outs):
        """A name and the buckets of these very arrays, from the last call or new."""
        arrays = [array for group in values + outs for array in group]
        known, *found = self._buckets.get(tuple(keys), ((), None))
        if len(known) == len(arrays) and all(a is b for a, b in zip(known, arrays)):
            return found
        for key, value, out in zip(keys, values, outs):
            if (len(value), len(out)) != (len(values[0]), len(outs[0])):
                raise ValueError(f'{self._name}: keys must have one array for each device, got '
                                 f'{len(values[0])} for key {keys[0]} and {len(value)} for {key}')
            self._check_dense(key, value + out)
        name = self._agree(keys, values)
        full = [i for i, value in enumerate(values) if value[0].size]
        dtypes = [np.dtype(values[i][0].dtype) for i in full]
        sizes = [values[i][0].size * dtype.itemsize for i, dtype in zip(full, dtypes)]
        groups = plan(sizes, dtypes, self._bucket_bytes)
        buckets = [self._bucket([values[full[i]] for i in group], [outs[full[i]] for i in group])
                   for group in groups]
        self._buckets[tuple(keys)] = arrays, name, buckets
        return name, buckets

    def _bucket(self, values, outs):
        same = all(len(value) == len(out) and all(a is b for a, b in zip(value, out))
                   for value, out in zip(values, outs))
        inputs = [[flat(array) for array in arrays] for arrays in zip(*values)]
        outputs = inputs if same else [[flat(array) for array in arrays] for arrays in zip(*outs)]
        half = self._half if np.dtype(inputs[0][0].dtype) == np.float32 else None
        return Bucket(inputs, outputs, self._transport.on_host, half)

    def _check_dense(self, key, arrays):
        first = arrays[0]
        for array in arrays:
            if array.stype != 'default':
                raise ValueError(f'{self._name}: key {key} must hold dense arrays, got '
                                 f'{array.stype}; use sparse_grad=False, or dist_sync')
            if (array.shape, array.dtype) != (first.shape, first.dtype):
                raise ValueError(f'{self._name}: the arrays of key {key} must have one shape and '
                                 f'dtype, got {first.shape}, {np.dtype(first.dtype)} and '
                                 f'{array.shape}, {np.dtype(array.dtype)}')

    def _agree(self, keys, values):
        """Raise ValueError on all workers unless their keys, shapes and dtypes are the same.

        Returns a number for them.
        """
        text = repr([(key, value[0].shape, np.dtype(value[0].dtype).name)
                     for key, value in zip(keys, values)])
        if text in self._agreed:
            return self._agreed[text]
        codes = mx.nd.zeros(self.num_workers, dtype='int64', ctx=mx.cpu())
        codes[self.rank] = zlib.crc32(text.encode())
        self._transport.wait(self._transport.start(codes, 'keys'))
        codes = codes.asnumpy()
        others = np.flatnonzero(codes != codes[0]).tolist()
        if others:
            raise ValueError(f'{self._name}: all workers must push the same keys, shapes and '
                             f'dtypes; those of ranks {others} differ from those of rank 0 (this '
                             f'is rank {self.rank})')
        return self._agreed.setdefault(text, len(self._agreed))


def _listed(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]
