"""Steps of a generative adversarial network."""
from mxnet import autograd, np


def update_D(X, Z, net_D, net_G, loss, trainer_D):  # noqa: N802, N803  (the book's names)
    """Train the discriminator on one batch; return the summed loss, a float (section 17.1).

    X holds real examples and Z, equally long, what net_G makes false ones of.  loss(y_hat, y)
    returns the loss of each example; the sum is that of the real and the false ones, halved.
    The generator gets no gradients.

    Raises ValueError when X and Z are not equally long.
    """
    batch_size = X.shape[0]
    if Z.shape[0] != batch_size:
        raise ValueError(f'update_D: X and Z must be equally long, got {batch_size} and '
                         f'{Z.shape[0]} examples')
    ones = np.ones((batch_size,), ctx=X.ctx)
    zeros = np.zeros((batch_size,), ctx=X.ctx)
    # Computed as in training, but not recorded: nothing goes back to the generator.
    with autograd.pause(train_mode=True):
        fake_X = net_G(Z)
    with autograd.record():
        loss_D = (loss(net_D(X), ones) + loss(net_D(fake_X), zeros)) / 2
    loss_D.backward()
    trainer_D.step(batch_size)
    return float(loss_D.sum())


def update_G(Z, net_D, net_G, loss, trainer_G):  # noqa: N802, N803
    """Train the generator on one batch; return the summed loss, a float (section 17.1).

    The discriminator, changed since `update_D`, judges anew what net_G makes of Z; the loss is
    that of taking it for real.  Gradients reach the discriminator's parameters, too, but only
    those of trainer_G change.
    """
    batch_size = Z.shape[0]
    ones = np.ones((batch_size,), ctx=Z.ctx)
    with autograd.record():
        loss_G = loss(net_D(net_G(Z)), ones)
    loss_G.backward()
    trainer_G.step(batch_size)
    return float(loss_G.sum())
