"""Gradients fused into buckets: one all-reduce for many small arrays."""
import mxnet as mx


def plan(sizes, dtypes, limit):
    """Group arrays into buckets: return lists of their positions.

    sizes: bytes of each array; dtypes: its type; limit: bytes.  Goes from the last array to the
    first, since the backward pass finishes them in this order.  A bucket takes arrays of one type
    until it holds limit bytes; an array of limit bytes or more stays alone.  The buckets come in
    the order in which the pass finishes them, that of their first arrays.  The result depends on
    the arguments alone, so that all ranks form the same buckets, in the same order.
    """
    buckets, filling = [], {}
    for i in reversed(range(len(sizes))):
        if sizes[i] >= limit:
            buckets.append([i])
            continue
        bucket, filled = filling.get(dtypes[i], (None, limit))
        if filled + sizes[i] > limit:
            bucket, filled = [], 0
            buckets.append(bucket)
        bucket.append(i)
        filling[dtypes[i]] = bucket, filled + sizes[i]
    # One of small arrays would hold up what is finished long before its last one.
    return sorted(buckets, key=min, reverse=True)


def flat(array):
    """An array's memory as a classic vector, without a copy."""
    return array.as_nd_ndarray().reshape((array.size,))


def plain(array):
    """A copy that can be sent: MXNet rearranges the weights of a convolution that predicts.

    Neither its parameter server nor a view can read those; operators other than a copy can.
    """
    return array * 1


class Bucket:
    """Some gradients as one vector.

    inputs[d] lists their flat arrays on device d, outputs[d] those which receive the sum.  `pack`
    returns the vector that is to be summed over the ranks, in place; `unpack` hands it out.  Both
    go through MXNet's engine, so that all that is pending on the arrays keeps its order.
    on_host: the vector must lie in the host's memory.  half: it travels as float16, divided by
    half (a power of two, at least the number of ranks) so that the sum overflows no sooner than
    its terms.
    """

    def __init__(self, inputs, outputs, on_host, half=None):
        self._inputs, self._outputs, self._half = inputs, outputs, half
        first, device = inputs[0][0], inputs[0][0].context
        host = mx.cpu_pinned() if on_host and device.device_type == 'gpu' else device
        single = len(inputs) == len(inputs[0]) == 1 and outputs[0][0] is first
        if single and host == device and not half:
            self._parts = self._results = [first]
            self._slices = [[]]
            self._host = self._wire = first
            return
        total = sum(array.size for array in inputs[0])

        def vector(context, dtype=first.dtype):
            return mx.nd.empty((total,), ctx=context, dtype=dtype)

        self._parts = [vector(arrays[0].context) for arrays in inputs]
        known = {part.context: part for part in self._parts}
        self._results = [known[device] if device in known else vector(device)
                         for device in (arrays[0].context for arrays in outputs)]
        self._slices = [_slices(result, arrays)
                        for result, arrays in zip(self._results, outputs)]
        self._host = self._parts[0] if host == device else vector(host)
        self._wire = vector(host, 'float16') if half else self._host

    def pack(self):
        """Return the sum over this process's devices, in their order, as one vector."""
        total = self._parts[0]
        for arrays, part in zip(self._inputs, self._parts):
            if len(arrays) > 1:
                mx.nd.concat(*arrays, dim=0, out=part)
            elif arrays[0] is not part:
                arrays[0].copyto(part)
            if part is not total:
                total += part.as_in_context(total.context)
        if self._host is not total:
            total.copyto(self._host)
        if self._half:
            mx.nd.cast(self._host * (1 / self._half), dtype='float16', out=self._wire)
        return self._wire

    def unpack(self):
        """Write the vector into the outputs."""
        if self._half:
            mx.nd.cast(self._wire, dtype=self._host.dtype, out=self._host)
            self._host *= self._half
        for arrays, result, slices in zip(self._outputs, self._results, self._slices):
            if result is not self._host:
                self._host.copyto(result)
            # One by one: MXNet's operator that splits an array takes nine times as long.
            for array, part in zip(arrays, slices):
                part.copyto(array)


def _slices(vector, arrays):
    """The parts of a vector that belong to flat arrays, without a copy."""
    slices, end = [], 0
    for array in arrays:
        slices.append(vector[end:end + array.size])
        end += array.size
    return slices
