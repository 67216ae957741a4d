"""Cross-correlation as the book defines it, convolutions and the residual block."""
import contextlib

from mxnet.gluon import nn

from d2l import ops

# With more of them MXNet's own is faster, but for large kernels.
_FEW_CHANNELS, _LARGE_KERNEL = 16, 5
_ACTIVATIONS = ('relu', 'sigmoid', 'tanh')


def corr2d(X, K):
    """Return the two-dimensional cross-correlation of X with the kernel K (section 6.2).

    X has shape (H, W), K (h, w), and the result (H - h + 1, W - w + 1):
    Y[i, j] = sum over (a, b) of X[i + a, j + b] * K[a, b].  Gradients reach X and K.

    Raises ValueError when an argument is not two-dimensional or K is larger than X.
    """
    if len(X.shape) != 2 or len(K.shape) != 2:
        raise ValueError(f'corr2d: X and K must have two axes, got the shapes {X.shape} and '
                         f'{K.shape}')
    h, w = K.shape
    rows, cols = X.shape[0] - h + 1, X.shape[1] - w + 1
    if min(h, w, rows, cols) < 1:
        raise ValueError(f'corr2d: K must fit into X, got the shapes {K.shape} and {X.shape}')
    # A loop over the kernel and not over the output: each step is one operation on whole arrays.
    return sum(X[a:a + rows, b:b + cols] * K[a, b] for a in range(h) for b in range(w))


class Conv2D(nn.Conv2D):
    """Gluon's Conv2D, faster where it has few channels (section 6.6).

    Arguments, parameters and results are those of Gluon's.  Square kernels that move by steps of 1
    and give less than 16 channels (16 if they are at least 5 x 5) are d2l's, `d2l.ops.conv2d`, and
    so are its activation functions; the others are MXNet's.
    """

    def hybrid_forward(self, F, x, weight, bias=None):
        if not self._runs_as_kernel():
            return super().hybrid_forward(F, x, weight, bias)
        out = ops.conv2d(x, weight, bias, channels=self._channels,
                         kernel_size=self._kwargs['kernel'][0], padding=self._kwargs['pad'][0])
        if self.act is None:
            return out
        name = self.act._act_type
        return ops.activation(out, act_type=name) if name in _ACTIVATIONS else self.act(out)

    def _runs_as_kernel(self):
        kwargs = self._kwargs
        (height, width), pad = kwargs['kernel'], kwargs['pad']
        few = self._channels < _FEW_CHANNELS or (
            self._channels == _FEW_CHANNELS and height >= _LARGE_KERNEL)
        return (few and height == width > pad[0] == pad[1] and kwargs['layout'] == 'NCHW'
                and kwargs['num_group'] == 1
                and tuple(kwargs['stride']) == tuple(kwargs['dilate']) == (1, 1)
                and 'conv2d' in ops.available())


@contextlib.contextmanager
def conv2d_kernels(net):
    """Within this scope the Conv2D layers of Gluon's in a net compute as those above do.

    Those inside hybridized blocks are parts of graphs, and stay as they are.
    """
    layers = [block for block in _not_compiled(net) if type(block) is nn.Conv2D]
    try:
        for layer in layers:
            layer.__class__ = Conv2D
        yield
    finally:
        for layer in layers:
            layer.__class__ = nn.Conv2D


def _not_compiled(block):
    if not getattr(block, '_active', False):
        yield block
        for child in block._children.values():
            yield from _not_compiled(child)


class Residual(nn.HybridBlock):
    """Residual block, relu(bn(conv(relu(bn(conv(X))))) + X) (section 7.6; He et al., 2016).

    Both convolutions are 3x3 with padding 1; the first has the given strides.  With use_1x1conv
    the shortcut is a 1x1 convolution with these strides, which is needed where the strides or the
    number of channels change the shape of X.

    X has shape (batch, channels, height, width).  The result has num_channels channels, and
    strides divide the height and width, rounded up.
    """

    def __init__(self, num_channels, use_1x1conv=False, strides=1, **kwargs):
        super().__init__(**kwargs)
        self.conv1 = nn.Conv2D(num_channels, kernel_size=3, padding=1, strides=strides)
        self.conv2 = nn.Conv2D(num_channels, kernel_size=3, padding=1)
        self.conv3 = (nn.Conv2D(num_channels, kernel_size=1, strides=strides) if use_1x1conv
                      else None)
        self.bn1 = nn.BatchNorm()
        self.bn2 = nn.BatchNorm()

    def hybrid_forward(self, F, X):
        Y = F.npx.relu(self.bn1(self.conv1(X)))
        Y = self.bn2(self.conv2(Y))
        if self.conv3 is not None:
            X = self.conv3(X)
        return F.npx.relu(Y + X)
