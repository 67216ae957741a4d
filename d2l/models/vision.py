"""Image classifiers."""
from mxnet.gluon import nn

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
            net.add(nn.Conv2D(channels, kernel_size=5, padding=padding, activation=activation),
                    nn.AvgPool2D(pool_size=2, strides=2))
        for units in (120, 84):
            if layer_norm:
                net.add(nn.Dense(units), LayerNorm(in_channels=units), nn.Activation(activation))
            else:
                net.add(nn.Dense(units, activation=activation))
        net.add(nn.Dense(num_classes))
    return net
