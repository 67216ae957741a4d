"""Cross-correlation as the book defines it, and the residual block."""
from mxnet.gluon import nn


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
