"""The book's Transformer (section 10.3): forward, training steps, and greedy decoding.

Batches are like those of fra-eng: padded sentences of differing length.  forward predicts all
steps of a target at once.  train is a whole step: forward, masked loss, backward, clipping, Adam.
greedy is encoder and num_steps tokens, one after the other.

d2l is our blocks, hybridized, with d2l's loss, clipping and d2l_adam.  mxnet is the same net of
MXNet's own operators, hybridized, with Gluon's; mxnet_steps decodes by a loop in Python around
compiled parts, as the book does, mxnet by one graph of all steps, as ours.  torch is eager, with
scaled_dot_product_attention and fused Adam.  All have the same parameters and keep the keys and
values of earlier steps.
"""
import numpy as onp
from mxnet import autograd, gluon, np, npx

from benchmarks.models._transformers import (
    STATIC,
    Sizes,
    Torch,
    checker,
    copy_parameters,
    plain_transformer,
    torch,
    values_of,
)
from benchmarks.run import Case
from d2l.models.sequence import transformer
from d2l.nn import GreedySearch, MaskedSoftmaxCELoss
from d2l.train import optimizers  # noqa: F401  (d2l_adam)
from d2l.train.language_model import clip_and_divide

# batch, steps, num_hiddens, ffn_num_hiddens, num_heads, num_layers, vocabulary
SHAPES = [(batch, *sizes) for sizes in ((10, 32, 64, 4, 2, 250), (32, 256, 512, 8, 2, 2000))
          for batch in (1, 8, 32)]
BOS, LEARNING_RATE = 2, 1e-4


def data(sizes):
    """Tokens of sources, inputs and labels of targets, and the lengths of both."""
    rng = onp.random.RandomState(0)
    src, tgt = rng.randint(4, sizes.vocab, size=(2, sizes.batch, sizes.steps + 1))
    lengths = rng.randint(sizes.steps // 4, sizes.steps + 1, size=(2, sizes.batch))
    tgt[:, 0] = BOS
    return (src[:, 1:].astype('float32'), tgt[:, :-1].astype('float32'),
            tgt[:, 1:].astype('float32'), *lengths.astype('float32'))


def initialized(net, arrays, values=None):
    net.initialize(init='xavier')
    net(np.array(arrays[0]), np.array(arrays[1]), np.array(arrays[3]))
    if values is not None:
        copy_parameters(net, values)
    return net


def forward_provider(net, arrays):
    net.hybridize(**STATIC)
    src, tgt, _, valid_len, _ = map(np.array, arrays)
    return lambda: [net(src, tgt, valid_len)[0]]


def train_provider(net, arrays, loss, trainer_name, clip, names):
    net.returns_state = False
    net.hybridize(**STATIC)
    loss.hybridize(**STATIC)
    src, tgt, label, valid_len, tgt_len = map(np.array, arrays)
    count = tgt_len.sum()
    trainer = gluon.Trainer(net.collect_params(), trainer_name, {'learning_rate': LEARNING_RATE})
    parameters = net._collect_params_with_prefix()

    def step():
        with autograd.record():
            scores, _ = net(src, tgt, valid_len)
            l = loss(scores, label, tgt_len)
        l.backward()
        clip(net, count, trainer)
        return [l.sum()] + [parameters[name].grad() for name in names]
    return step


def our_clipping(net, count, trainer):
    clip_and_divide(net, 1, count)
    trainer.step(1)


class PlainLoss(gluon.HybridBlock):
    """With the mask as one of MXNet's operators makes it."""

    def __init__(self):
        super().__init__()
        self.loss = gluon.loss.SoftmaxCELoss()

    def hybrid_forward(self, F, scores, label, valid_len):
        mask = F.npx.sequence_mask(F.np.expand_dims(F.np.ones_like(label), 2), valid_len,
                                   use_sequence_length=True, axis=1)
        return self.loss(scores, label, mask)


def plain_clipping(net, count, trainer):
    gluon.utils.clip_global_norm([p.grad().as_nd_ndarray() for p in net.collect_params().values()
                                  if p.grad_req != 'null'], 1, check_isfinite=False)
    trainer.step(float(count))


def torch_train(net, arrays, names):
    src, tgt, label, valid_len, tgt_len = (torch.tensor(a) for a in arrays)
    steps, count = label.shape[1], tgt_len.sum()
    label = label.long().masked_fill(torch.arange(steps) >= tgt_len[:, None], -100).flatten()
    parameters = list(net.p.values())
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE, fused=True)
    src, tgt = src.long(), tgt.long()

    def step():
        optimizer.zero_grad()
        scores = net(src, tgt, valid_len, True)
        l = torch.nn.functional.cross_entropy(scores.flatten(0, 1), label, reduction='sum') / steps
        l.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1, foreach=True)
        torch._foreach_div_([p.grad for p in parameters], count)
        optimizer.step()
        return [l.detach()] + [net.p[name].grad for name in names]
    return step


def torch_forward(net, arrays):
    src, tgt, _, valid_len, _ = (torch.tensor(a).long() for a in arrays)

    def forward():
        with torch.inference_mode():
            return [net(src, tgt, valid_len)]
    return forward


def torch_search(net, arrays):
    src, valid_len = (torch.tensor(arrays[i]).long() for i in (0, 3))

    def search():
        with torch.inference_mode():
            return [net.search(src, valid_len, BOS, src.shape[1])]
    return search


def search_provider(net, arrays, in_one=True):
    src, valid_len = np.array(arrays[0]), np.array(arrays[3])
    search = GreedySearch(net, BOS, src.shape[1])
    if in_one:
        search.hybridize(**STATIC)
    else:
        net.hybridize()
    return lambda: [search(src, valid_len)]


def inference(sizes, arrays, kind):
    """Providers of one kind, 'forward' or 'greedy'."""
    ours = initialized(our_net(sizes), arrays)
    values = values_of(ours)
    plain = initialized(plain_transformer(sizes, sizes.steps), arrays, values)
    if kind == 'forward':
        found = {'d2l': forward_provider(ours, arrays), 'mxnet': forward_provider(plain, arrays)}
    else:
        found = {'d2l': search_provider(ours, arrays)}
        for name, in_one in (('mxnet', True), ('mxnet_steps', False)):
            one = plain_transformer(sizes, 1)
            one.initialize()
            one(np.array(arrays[0]), np.array(arrays[1][:, :1]), np.array(arrays[3]))
            copy_parameters(one, values)
            found[name] = search_provider(one, arrays, in_one)
    if torch is not None:
        provider = torch_forward if kind == 'forward' else torch_search
        found['torch'] = provider(Torch(values, sizes), arrays)
    return found


def our_net(sizes):
    return transformer(sizes.vocab, sizes.vocab, sizes.hiddens, sizes.ffn, sizes.heads,
                       sizes.layers, sizes.dropout)


def training(sizes, arrays):
    ours = initialized(our_net(sizes), arrays)
    values = values_of(ours)
    plain = initialized(plain_transformer(sizes, sizes.steps), arrays, values)
    found = {'d2l': train_provider(ours, arrays, MaskedSoftmaxCELoss(), 'd2l_adam', our_clipping,
                                   list(values)),
             'mxnet': train_provider(plain, arrays, PlainLoss(), 'adam', plain_clipping,
                                     list(values))}
    if torch is not None:
        found['torch'] = torch_train(Torch(values, sizes), arrays, list(values))
    return found


def cases():
    npx.random.seed(0)
    for shape in SHAPES:
        sizes = Sizes(*shape)
        arrays = data(sizes)
        name = f'h{sizes.hiddens} T{sizes.steps} batch {sizes.batch}'
        for kind in ('forward', 'greedy'):
            yield Case(f'{kind} {name}', inference(sizes, arrays, kind), checker(kind))
        yield Case(f'train {name}', training(sizes, arrays), checker('train'))
        sizes = Sizes(*shape, 0.1)
        yield Case(f'train dropout 0.1 {name}', training(sizes, arrays), checker('dropout'))
