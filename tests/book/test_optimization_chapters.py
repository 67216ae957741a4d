"""A reader's sessions with chapters 11 and 12: optimizers, plots of them, and several devices."""
import math
import subprocess
import sys

import mxnet as mx
import pytest
from mxnet import autograd, gluon, init, lr_scheduler, np, npx
from mxnet.gluon import nn

from d2l import mxnet as d2l


def test_functions_and_their_plots(reader):
    """Sections 11.1 to 11.3."""
    x = d2l.arange(0.5, 1.5, 0.01)
    d2l.set_figsize((4.5, 2.5))
    d2l.plot(x, [x * d2l.cos(np.pi * x), x * d2l.cos(np.pi * x) + 0.2 * d2l.cos(5 * np.pi * x)],
             'x', 'risk')
    d2l.annotate('a minimum', (1.0, -1.2), (0.5, -1.1))
    d2l.plt.figure()
    x, y = d2l.meshgrid(d2l.linspace(-1.0, 1.0, 21), d2l.linspace(-1.0, 1.0, 21))
    ax = d2l.plt.figure().add_subplot(111, projection='3d')
    ax.plot_wireframe(x, y, x ** 2 - y ** 2, rstride=10, cstride=10)
    ax.plot([0], [0], [0], 'rx')
    d2l.plt.xticks([-1, 0, 1])
    ax.set_zticks([-1, 0, 1])
    x, segment = d2l.arange(-2, 2, 0.1), d2l.tensor([-1.5, 1])
    d2l.use_svg_display()
    _, axes = d2l.plt.subplots(1, 3, figsize=(9, 3))
    for ax, func in zip(axes, [lambda x: 0.5 * x ** 2, lambda x: d2l.cos(np.pi * x),
                               lambda x: d2l.exp(0.5 * x)]):
        d2l.plot([x, segment], [func(x), func(segment)], axes=ax)
        assert len(ax.lines) == 2
    c = d2l.tensor(0.15 * np.pi)
    point, trace = 10.0, [10.0]
    for _ in range(3):
        point -= 2 * (d2l.cos(c * point) - c * point * d2l.sin(c * point))
        trace.append(float(point))
    print('epoch 3, x:', point)
    line = d2l.arange(-2, 2, 0.1)
    d2l.set_figsize()
    d2l.plot([line, trace], [[x * d2l.cos(c * x) for x in line],
                             [x * d2l.cos(c * x) for x in trace]], 'x', 'f(x)', fmts=['-', '-o'])
    assert d2l.plt.gca().lines[0].get_ydata().shape == (40,)
    assert reader().startswith('epoch 3, x: ')


def test_descent_in_two_variables(reader):
    """Sections 11.3, 11.4 and 11.6: numbers, arrays of one element and both in one trace."""
    def gradient(x1, x2):
        return 0.2 * x1, 4 * x2

    def noisy(x1, x2, s1, s2):
        g1, g2 = gradient(x1, x2)
        g1 += d2l.normal(0.0, 1, (1,))
        g2 += d2l.normal(0.0, 1, (1,))
        return x1 - 0.1 * g1, x2 - 0.1 * g2, 0, 0

    def momentum(x1, x2, s1, s2):
        g1, g2 = gradient(x1, x2)
        s1, s2 = 0.5 * s1 + g1, 0.5 * s2 + g2
        return x1 - 0.4 * s1, x2 - 0.4 * s2, s1, s2

    for trainer in (noisy, momentum):
        d2l.show_trace_2d(lambda x1, x2: 0.1 * x1 ** 2 + 2 * x2 ** 2, d2l.train_2d(trainer))
        assert len(d2l.plt.gca().lines[-1].get_xdata()) == 21
    trace = d2l.train_2d(momentum, steps=3)
    d2l.plt.plot(*zip(*trace), '-o', color='#ff7f0e')
    x1, x2 = d2l.meshgrid(d2l.arange(-5.5, 1.0, 0.1), d2l.arange(-3.0, 1.0, 0.1))
    d2l.plt.contour(x1, x2, 0.1 * x1 ** 2 + 2 * x2 ** 2, colors='#1f77b4')
    for beta in (0.95, 0.6):
        x = d2l.numpy(d2l.arange(40))
        d2l.plt.plot(x, beta ** x, label=f'beta = {beta:.2f}')
        d2l.plt.plot(d2l.arange(40), beta ** d2l.arange(40))
    d2l.plt.xlabel('time')
    d2l.plt.legend()
    assert reader().count('epoch 20, x1 ') == 2


def adam_like(params, states, hyperparams):
    """Sections 11.6 to 11.10 in one: momenta, second moments, and a step that counts."""
    for p, (v, s) in zip(params, states):
        v[:] = 0.9 * v + 0.1 * p.grad
        s[:] = s + 0.001 * np.sign(np.square(p.grad) - s) * np.square(p.grad)
        s[:] = 0.999 * s + 0.001 * np.square(p.grad)
        v_hat, s_hat = v / (1 - 0.9 ** hyperparams['t']), s / (1 - 0.999 ** hyperparams['t'])
        p[:] -= hyperparams['lr'] * v_hat / (np.sqrt(s_hat) + 1e-6)
    hyperparams['t'] += 1


def test_optimizers_from_scratch_and_by_name(hub_data, reader):
    """Sections 11.5 to 11.10."""
    hub_data(real=False)
    data = np.genfromtxt(d2l.download('airfoil'), dtype=np.float32, delimiter='\t')
    data = (data - data.mean(axis=0)) / data.std(axis=0)
    by_hand = d2l.load_array((data[:300, :-1], data[:300, -1]), 10, is_train=True)
    results = []
    for data_iter, feature_dim in ((by_hand, 5), d2l.get_data_ch11(batch_size=100, n=300)):
        states = [(d2l.zeros((feature_dim, 1)), d2l.zeros((feature_dim, 1))),
                  (d2l.zeros(1), d2l.zeros(1))]
        results.append(d2l.train_ch11(adam_like, states, {'lr': 0.01, 't': 1}, data_iter,
                                      feature_dim, 1))

    def sgd(params, states, hyperparams):
        d2l.sgd(params, hyperparams['lr'], batch_size=1)
    results.append(d2l.train_ch11(sgd, None, {'lr': 0.05}, data_iter, feature_dim))
    d2l.plot(*list(map(list, zip(*results))), 'time (sec)', 'loss', xlim=[1e-2, 10],
             legend=['adam', 'adam, large batches', 'sgd'])
    d2l.plt.gca().set_xscale('log')
    assert len(d2l.plt.gca().lines) == 3
    for name, hyperparams in [('sgd', {'learning_rate': 0.05, 'momentum': 0.9}),
                              ('adagrad', {'learning_rate': 0.1}), ('adadelta', {'rho': 0.9}),
                              ('rmsprop', {'learning_rate': 0.01, 'gamma1': 0.9}),
                              ('adam', {'learning_rate': 0.01})]:
        d2l.train_concise_ch11(name, hyperparams, data_iter, 1)
    assert reader().count('sec/epoch') == 8


class SquareRoot:
    def __init__(self, lr=0.1):
        self.lr = lr

    def __call__(self, num_update):
        return self.lr * pow(num_update + 1.0, -0.5)


SCHEDULERS = {
    'square root': SquareRoot,
    'steps': lambda: lr_scheduler.MultiFactorScheduler(step=[15, 30], factor=0.5, base_lr=0.5),
    'cosine': lambda: lr_scheduler.CosineScheduler(max_update=20, base_lr=0.3, final_lr=0.01,
                                                   warmup_steps=5, warmup_begin_lr=0.1)}


def small_net():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(2, kernel_size=5, activation='relu'), nn.AvgPool2D(4, 4), nn.Dense(10))
    return net


def few_pictures(batches=2):
    """The first batches of Fashion-MNIST as a loader with a length."""
    train_iter, _ = d2l.load_data_fashion_mnist(64)
    return [batch for _, batch in zip(range(batches), train_iter)]


@pytest.mark.parametrize('name', SCHEDULERS)
def test_a_learning_rate_scheduler(name, hub_data, reader):
    """Section 11.11: plotted over an array of steps, in the trainer, and set by hand."""
    hub_data(real=False)
    scheduler, device = SCHEDULERS[name](), d2l.try_gpu()
    d2l.plot(d2l.arange(30), [scheduler(t) for t in d2l.arange(30)])
    assert len(d2l.plt.gca().lines[0].get_ydata()) == 30
    net, train_iter = small_net(), few_pictures()
    net.hybridize()
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    for options in ({'learning_rate': 0.3}, {'lr_scheduler': SCHEDULERS[name]()}):
        net.initialize(force_reinit=True, ctx=device, init=init.Xavier())
        trainer = gluon.Trainer(net.collect_params(), 'sgd', options)
        animator = d2l.Animator(xlabel='epoch', xlim=[0, 2],
                                legend=['train loss', 'train acc', 'test acc'])
        for epoch in range(2):
            metric = d2l.Accumulator(3)
            for i, (X, y) in enumerate(train_iter):
                X, y = X.as_in_ctx(device), y.as_in_ctx(device)
                with autograd.record():
                    y_hat = net(X)
                    l = loss(y_hat, y)
                l.backward()
                trainer.step(X.shape[0])
                metric.add(l.sum(), d2l.accuracy(y_hat, y), X.shape[0])
                animator.add(epoch + i / len(train_iter),
                             (metric[0] / metric[2], metric[1] / metric[2], None))
            test_acc = d2l.evaluate_accuracy_gpu(net, train_iter)
            animator.add(epoch + 1, (None, None, test_acc))
            if 'learning_rate' in options:
                trainer.set_learning_rate(scheduler(epoch))
        print(f'test acc {test_acc:.3f}, lr {trainer.learning_rate:f}')
    assert [len(y) for y in animator.Y] == [4, 4, 2]


def test_hybrid_nets_and_time(reader, tmp_path):
    """Sections 12.1 and 12.2."""
    net, x = nn.HybridSequential(), np.random.normal(size=(1, 512))
    net.add(nn.Dense(16, activation='relu'), nn.Dense(2))
    net.initialize()
    Y = net(x)
    for description in ('imperative', 'hybrid'):
        with d2l.Benchmark(description):
            for _ in range(10):
                net(x)
            npx.waitall()
        net.hybridize()
    assert abs(net(x) - Y).max() < 1e-5
    net.export(str(tmp_path / 'mlp'))
    with d2l.Benchmark():
        np.dot(x, x.T).sum().item()
    lines = reader().splitlines()
    assert [line.split(':')[0] for line in lines] == ['imperative', 'hybrid', 'Done']
    timer = d2l.Timer()
    A, B = np.zeros((8, 8)), np.random.normal(0, 1, (8, 8))
    for j in range(0, 8, 4):
        A[:, j:j + 4] = np.dot(B, B[:, j:j + 4])
    A.wait_to_read()
    timer.stop()
    print(f'{[0.03 / i for i in timer.times][0]:.3f} Gigaflops, block {timer.avg():.3f} sec')


def net_of_params(X, params):
    h = npx.convolution(data=X, weight=params[0], bias=params[1], kernel=(5, 5), num_filter=2)
    h = npx.pooling(data=npx.relu(h), pool_type='avg', kernel=(4, 4), stride=(4, 4))
    return np.dot(h.reshape(h.shape[0], -1), params[2]) + params[3]


@pytest.mark.parametrize('num_devices', [1, 2])
def test_two_devices_by_hand(num_devices, hub_data, reader):
    """Section 12.5; devices that are not there are the CPU, which may then come twice."""
    hub_data(real=False)
    devices = [d2l.try_gpu(i) for i in range(num_devices)]
    params = [np.random.normal(scale=0.01, size=shape) for shape in
              ((2, 1, 5, 5), (2,), (72, 10), (10,))]
    device_params = []
    for device in devices:
        device_params.append([param.copyto(device) for param in params])
        for param in device_params[-1]:
            param.attach_grad()
    loss, data = gluon.loss.SoftmaxCrossEntropyLoss(), few_pictures()
    animator, timer = d2l.Animator('epoch', 'test acc', xlim=[1, 2]), d2l.Timer()
    for epoch in range(2):
        timer.start()
        for X, y in data:
            X_shards, y_shards = d2l.split_batch(X, y, devices)
            with autograd.record():
                losses = [loss(net_of_params(X_shard, device_W), y_shard)
                          for X_shard, y_shard, device_W in zip(X_shards, y_shards, device_params)]
            for l in losses:
                l.backward()
            for i in range(len(params)):
                grads = [device_W[i].grad for device_W in device_params]
                for other in grads[1:]:
                    grads[0][:] += other.copyto(grads[0].ctx)
                for other in grads[1:]:
                    grads[0].copyto(other)
            for param in device_params:
                d2l.sgd(param, 0.2, X.shape[0])
            npx.waitall()
        timer.stop()
        animator.add(epoch + 1, (d2l.evaluate_accuracy_gpu(
            lambda x: net_of_params(x, device_params[0]), data, devices[0]),))
    print(f'test acc: {animator.Y[0][-1]:.2f}, {timer.avg():.1f} sec/epoch on {str(devices)}')
    assert all((a == b).all() for a, b in zip(device_params[0], device_params[-1]))


def test_several_devices_with_gluon(hub_data, reader):
    """Section 12.6: the residual net in pieces, and weights that wait for their shape."""
    hub_data(real=False)
    devices = [mx.cpu(0), mx.cpu(1)]
    net = nn.Sequential()
    net.add(nn.Conv2D(4, kernel_size=3, strides=4), nn.BatchNorm(), nn.Activation('relu'))
    blk = nn.Sequential()
    blk.add(d2l.Residual(8, use_1x1conv=True, strides=2), d2l.Residual(8))
    net.add(blk, nn.GlobalAvgPool2D(), nn.Dense(10))
    net.initialize(init=init.Normal(sigma=0.01), ctx=devices)
    weight = net[0].params.get('weight')
    with pytest.raises(RuntimeError):
        weight.data()
    x_shards = gluon.utils.split_and_load(np.random.uniform(size=(4, 1, 28, 28)), devices)
    print(net(x_shards[0]), net(x_shards[1]))
    assert (weight.data(devices[0])[0] == weight.data(devices[1])[0].as_in_ctx(devices[0])).all()
    trainer, loss = (gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.1}),
                     gluon.loss.SoftmaxCrossEntropyLoss())
    for features, labels in few_pictures(1):
        X_shards, y_shards = d2l.split_batch(features, labels, devices)
        with autograd.record():
            losses = [loss(net(X_shard), y_shard) for X_shard, y_shard in zip(X_shards, y_shards)]
        for l in losses:
            l.backward()
        trainer.step(len(features))
    accuracy = d2l.evaluate_accuracy_gpus(net, [(features, labels)], d2l.split_batch)
    assert 0 <= accuracy <= 1 and math.isfinite(accuracy)


SCRIPT = '''
from d2l import mxnet as d2l
from mxnet import autograd, gluon, np, npx
from mxnet.gluon import nn, rnn
npx.set_np()
device = d2l.try_gpu()
train_iter, vocab = d2l.load_data_time_machine(16, 8, max_tokens=400)
d2l.train_ch8(d2l.RNNModel(rnn.GRU(8), len(vocab)), train_iter, vocab, 1, 2, device)
data_iter, feature_dim = d2l.get_data_ch11(batch_size=50, n=200)
d2l.train_concise_ch11('sgd', {'learning_rate': 0.05}, data_iter, 2)
X = np.random.normal(size=(32, 2))
net = nn.Sequential()
net.add(nn.Dense(2))
net.initialize()
trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.1})
data_iter = d2l.load_array((X, (X[:, 0] > 0).astype('int32')), 8)
d2l.train_ch13(net, data_iter, data_iter, gluon.loss.SoftmaxCrossEntropyLoss(), trainer, 2)
animator = d2l.Animator(xlabel='epoch', nrows=2, figsize=(5, 5), legend=['D', 'G'])
for epoch in range(3):
    animator.axes[1].cla()
    animator.axes[1].scatter(X[:, 0], X[:, 1])
    animator.add(epoch, (1, 2))
d2l.plt.show()
'''


def test_a_script_without_a_screen(tmp_path):
    env = {'PATH': '', 'HOME': str(tmp_path), 'D2L_OFFLINE': '1', 'OMP_NUM_THREADS': '1',
           'PYTHONPATH': ':'.join(sys.path), 'PYTHONWARNINGS': 'ignore'}
    done = subprocess.run([sys.executable, '-c', SCRIPT], cwd=str(tmp_path), env=env,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr):
        assert '\x1b' not in text and '\r' not in text and 'Figure(' not in text
    lines = done.stdout.splitlines()
    # A line and two samples, one line, two lines.
    assert len(lines) == 6 and lines[1].startswith('time traveller')
