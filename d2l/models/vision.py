"""Image classifiers."""
from mxnet.gluon import nn

from d2l.nn.conv import Conv2D, Residual
from d2l.nn.layer_norm import LayerNorm


def lenet(num_classes=10, activation='sigmoid', layer_norm=False, **kwargs):
    """LeNet for pictures of 28 x 28 (section 6.6; LeCun et al., 1998): a HybridSequential.

    Input (batch, 1, 28, 28), output (batch, num_classes), float32.  The book's has sigmoids; it
    stays at chance level for hundreds of steps, with activation='relu' it does not.  With
    layer_norm the two hidden dense layers are normalized before their activation.
    """
    net = nn.HybridSequential(**kwargs)
    with net.name_scope():
        for channels, padding in ((6, 2), (16, 0)):
            net.add(Conv2D(channels, kernel_size=5, padding=padding, activation=activation),
                    nn.AvgPool2D(pool_size=2, strides=2))
        for units in (120, 84):
            if layer_norm:
                net.add(nn.Dense(units), LayerNorm(in_channels=units), nn.Activation(activation))
            else:
                net.add(nn.Dense(units, activation=activation))
        net.add(nn.Dense(num_classes))
    return net


def resnet18(num_classes, **kwargs):
    """ResNet-18 for small pictures (section 12.6; He et al., 2016): a HybridSequential.

    The stem is a 3x3 convolution without pooling.  Four stages of two residual blocks, of 64,
    128, 256 and 512 channels, follow; all but the first halve height and width, rounded up.
    Input (batch, channels, height, width), output (batch, num_classes), float32.
    """
    net = nn.HybridSequential(**kwargs)
    with net.name_scope():
        net.add(nn.Conv2D(64, kernel_size=3, strides=1, padding=1), nn.BatchNorm(),
                nn.Activation('relu'), _stage(64, halve=False), _stage(128), _stage(256),
                _stage(512), nn.GlobalAvgPool2D(), nn.Dense(num_classes))
    return net


def _stage(num_channels, halve=True):
    """Two residual blocks, the first of which may halve height and width."""
    stage = nn.HybridSequential()
    with stage.name_scope():
        stage.add(Residual(num_channels, use_1x1conv=halve, strides=2 if halve else 1),
                  Residual(num_channels))
    return stage
