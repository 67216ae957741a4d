"""One Transformer encoder block of the book (section 10.3), forward and a training step.

d2l is our block, hybridized; mxnet the same net made of Gluon's and MXNet's own layers, hybridized;
torch the same of PyTorch's functions.  All have the same parameters.  The training step is forward
and backward with the gradients of input and parameters, without an update.
"""
import numpy as onp
from mxnet import gluon, np, npx

from benchmarks.calls import check_equal, mxnet_calls, to_numpy, torch_calls
from benchmarks.run import Case
from d2l.nn import EncoderBlock

try:
    import torch
    from torch.nn import functional
except ImportError:
    torch = None

# batch, steps, num_hiddens, ffn_num_hiddens, num_heads
SIZES = [(1, 64, 256, 512, 4), (8, 64, 256, 512, 4), (32, 64, 256, 512, 4)]
EPS = 1e-5


class Composed(gluon.HybridBlock):
    """The block of MXNet's own operators, with children named as ours are."""

    def __init__(self, num_hiddens, ffn_num_hiddens, num_heads, dropout):
        super().__init__()
        self.num_heads, self.scale = num_heads, (num_hiddens // num_heads) ** -0.5
        for name in ('W_q', 'W_k', 'W_v', 'W_o'):
            setattr(self, name, gluon.nn.Dense(num_hiddens, use_bias=False, flatten=False))
        self.dense1 = gluon.nn.Dense(ffn_num_hiddens, activation='relu', flatten=False)
        self.dense2 = gluon.nn.Dense(num_hiddens, flatten=False)
        self.ln1, self.ln2 = gluon.nn.LayerNorm(), gluon.nn.LayerNorm()
        self.dropout = gluon.nn.Dropout(dropout)

    def heads(self, F, X):
        X = F.npx.reshape(X, (-2, -2, self.num_heads, -1))
        return F.npx.reshape(F.np.transpose(X, (0, 2, 1, 3)), (-5, -4))

    def hybrid_forward(self, F, X):
        q, k, v = (self.heads(F, layer(X)) for layer in (self.W_q, self.W_k, self.W_v))
        scores = F.npx.batch_dot(q, k, transpose_b=True) * self.scale
        out = F.npx.batch_dot(self.dropout(F.npx.softmax(scores, axis=-1)), v)
        out = F.npx.reshape(out, (-6, -1, self.num_heads, -4))
        out = F.npx.reshape(F.np.transpose(out, (0, 2, 1, 3)), (-2, -2, -5))
        Y = self.ln1(X + self.dropout(self.W_o(out)))
        return self.ln2(Y + self.dropout(self.dense2(self.dense1(Y))))


def parameters_of_ours(net):
    """In one order for all: four projections, the network's weights and biases, both norms."""
    attention, ffn = net.attention, net.ffn
    return [attention.W_q.weight, attention.W_k.weight, attention.W_v.weight, attention.W_o.weight,
            ffn.dense1.weight, ffn.dense1.bias, ffn.dense2.weight, ffn.dense2.bias,
            net.addnorm1.ln.gamma, net.addnorm1.ln.beta, net.addnorm2.ln.gamma,
            net.addnorm2.ln.beta]


def parameters_of_composed(net):
    return [net.W_q.weight, net.W_k.weight, net.W_v.weight, net.W_o.weight, net.dense1.weight,
            net.dense1.bias, net.dense2.weight, net.dense2.bias, net.ln1.gamma, net.ln1.beta,
            net.ln2.gamma, net.ln2.beta]


def mxnet_provider(net, parameters, values, X, dy, train):
    """values: numbers for the parameters, or None, to return those that Xavier gives."""
    net.initialize(init='xavier')
    X, dy = np.array(X), np.array(dy)
    net(X)
    parameters = parameters(net)
    for parameter, value in zip(parameters, values or ()):
        parameter.set_data(np.array(value))
    net.hybridize(static_alloc=True, static_shape=True)
    X.attach_grad()

    return (mxnet_calls(lambda: net(X), dy, [X] + parameters, train),
            [p.data().asnumpy() for p in parameters])


def torch_block(X, parameters, num_heads, p, train):
    W_q, W_k, W_v, W_o, W1, b1, W2, b2, gamma1, beta1, gamma2, beta2 = parameters

    def dropped(Y):
        return functional.dropout(Y, p, training=train)

    def heads(W):
        return functional.linear(X, W).unflatten(-1, (num_heads, -1)).transpose(1, 2)
    out = functional.scaled_dot_product_attention(heads(W_q), heads(W_k), heads(W_v),
                                                  dropout_p=p if train else 0.0)
    out = functional.linear(out.transpose(1, 2).flatten(2), W_o)
    Y = functional.layer_norm(X + dropped(out), gamma1.shape, gamma1, beta1, EPS)
    out = functional.linear(functional.relu(functional.linear(Y, W1, b1)), W2, b2)
    return functional.layer_norm(Y + dropped(out), gamma2.shape, gamma2, beta2, EPS)


def torch_provider(values, X, dy, num_heads, p, train):
    given = [torch.tensor(a, requires_grad=True) for a in [X] + values]
    dy = torch.tensor(dy)

    return torch_calls(lambda: torch_block(given[0], given[1:], num_heads, p, train), dy, given,
                       train)


def checker(p):
    def check(results):
        """Equal numbers; of the same size where every provider drops entries of its own."""
        results = to_numpy(results)
        if not p:
            check_equal(results)
        for name, arrays in results.items():
            for got, want in zip(arrays, results['mxnet']):
                assert 0.8 < onp.linalg.norm(got) / onp.linalg.norm(want) < 1.25, name
    return check


def cases():
    npx.random.seed(0)
    rng = onp.random.RandomState(0)
    for size in SIZES:
        batch, steps, num_hiddens, ffn_num_hiddens, num_heads = size
        X, dy = rng.standard_normal((2, batch, steps, num_hiddens)).astype('float32')
        for mode, p, train in (('forward', 0, False), ('train', 0, True),
                               ('train dropout 0.1', 0.1, True)):
            ours, values = mxnet_provider(
                EncoderBlock(num_hiddens, ffn_num_hiddens, num_heads, p), parameters_of_ours,
                None, X, dy, train)
            theirs, _ = mxnet_provider(Composed(num_hiddens, ffn_num_hiddens, num_heads, p),
                                       parameters_of_composed, values, X, dy, train)
            providers = {'d2l': ours, 'mxnet': theirs}
            if torch is not None:
                providers['torch'] = torch_provider(values, X, dy, num_heads, p, train)
            yield Case(f'{mode} batch {batch} steps {steps} hiddens {num_hiddens}', providers,
                       checker(p))
