"""A reader's sessions with chapters 16 and 17: recommender systems and adversarial nets."""
import os
import random
import sys

import mxnet as mx
import pytest
from mxnet import autograd, gluon, init, np, npx
from mxnet.gluon import nn

from d2l import mxnet as d2l


class Factors(nn.Block):
    """Section 16.3."""

    def __init__(self, num_factors, num_users, num_items, **kwargs):
        super().__init__(**kwargs)
        self.P = nn.Embedding(input_dim=num_users, output_dim=num_factors)
        self.Q = nn.Embedding(input_dim=num_items, output_dim=num_factors)
        self.user_bias, self.item_bias = nn.Embedding(num_users, 1), nn.Embedding(num_items, 1)

    def forward(self, user_id, item_id):
        outputs = (self.P(user_id) * self.Q(item_id)).sum(axis=1)
        outputs = outputs + np.squeeze(self.user_bias(user_id))
        return (outputs + np.squeeze(self.item_bias(item_id))).flatten()


def root_mean_square_error(net, test_iter, devices):
    rmse, errors = mx.metric.RMSE(), []
    for users, items, ratings in test_iter:
        u, i, r_ui = (gluon.utils.split_and_load(part, devices, even_split=False)
                      for part in (users, items, ratings))
        rmse.update(labels=r_ui, preds=[net(u, i) for u, i in zip(u, i)])
        errors.append(rmse.get()[1])
    return float(np.mean(np.array(errors)))


@pytest.mark.parametrize('real', [False, True])
def test_factorization(real, hub_data, reader):
    """Sections 16.2 and 16.3, the table first, then the training by a loop of the reader's."""
    hub_data('ml-100k', real=real)
    data, num_users, num_items = d2l.read_data_ml100k()
    print(f'number of users: {num_users}, number of items: {num_items}')
    print(data.head(5), 1 - len(data) / (num_users * num_items))
    d2l.plt.hist(data['rating'], bins=5, ec='black')
    d2l.plt.title('Ratings')
    devices = d2l.try_all_gpus()
    num_users, num_items, train_iter, test_iter = d2l.split_and_load_ml100k(
        split_mode='random', test_ratio=0.1, batch_size=1024 if real else 64)
    net, loss = Factors(8, num_users, num_items), gluon.loss.L2Loss()
    net.initialize(ctx=devices, force_reinit=True, init=mx.init.Normal(0.01))
    trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.002, 'wd': 1e-5})
    d2l.train_recsys_rating(net, train_iter, test_iter, loss, trainer, 1, devices,
                            root_mean_square_error)
    metric, l = d2l.Accumulator(3), 0
    for values in train_iter:
        assert isinstance(values, list)
        parts = [gluon.utils.split_and_load(v, devices) for v in values]
        with autograd.record():
            ls = [loss(net(*t), s) for t, s in zip(zip(*parts[:-1]), parts[-1])]
        for one in ls:
            one.backward()
        l += sum(one.asnumpy() for one in ls).mean() / len(devices)
        trainer.step(values[0].shape[0])
        metric.add(l, values[0].shape[0], values[0].size)
    score = net(np.array([20], dtype='int', ctx=devices[0]),
                np.array([30], dtype='int', ctx=devices[0]))
    assert score.shape == (1,) and metric[1] == metric[2]
    assert 'test RMSE ' in reader()


class Autoencoder(nn.Block):
    """Section 16.4."""

    def __init__(self, num_hidden, num_users, dropout=0.05):
        super().__init__()
        self.encoder = nn.Dense(num_hidden, activation='sigmoid', use_bias=True)
        self.decoder = nn.Dense(num_users, use_bias=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input):
        pred = self.decoder(self.dropout(self.encoder(input)))
        return pred * np.sign(input) if autograd.is_training() else pred


def test_an_autoencoder(hub_data, reader):
    """Section 16.4: loaders over one matrix, and an evaluator with a matrix of its own."""
    def evaluator(network, inter_matrix, test_data, devices):
        scores = []
        for values in inter_matrix:
            feat = gluon.utils.split_and_load(values, devices, even_split=False)
            scores.extend([network(i).asnumpy() for i in feat])
        recons = np.array([item for sublist in scores for item in sublist])
        square = np.sum(np.square(test_data - np.sign(test_data) * recons))
        return float(np.sqrt(square / np.sum(np.sign(test_data))))

    hub_data('ml-100k', real=False)
    df, num_users, num_items = d2l.read_data_ml100k()
    parts = d2l.split_data_ml100k(df, num_users, num_items)
    train_mat, test_mat = (d2l.load_data_ml100k(part, num_users, num_items)[3] for part in parts)
    workers = d2l.get_dataloader_workers()
    train_iter = gluon.data.DataLoader(train_mat, shuffle=True, last_batch='rollover',
                                       batch_size=16, num_workers=workers)
    test_iter = gluon.data.DataLoader(np.array(train_mat), shuffle=False, last_batch='keep',
                                      batch_size=64, num_workers=workers)
    devices, net = d2l.try_all_gpus(), Autoencoder(8, num_users)
    net.initialize(ctx=devices, force_reinit=True, init=mx.init.Normal(0.01))
    trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.002, 'wd': 1e-5})
    d2l.train_recsys_rating(net, train_iter, test_iter, gluon.loss.L2Loss(), trainer, 2, devices,
                            evaluator, inter_mat=test_mat)
    assert 'test RMSE ' in reader()


class NeuralFactors(nn.Block):
    """Section 16.6."""

    def __init__(self, num_factors, num_users, num_items, nums_hiddens, **kwargs):
        super().__init__(**kwargs)
        self.P, self.Q = nn.Embedding(num_users, num_factors), nn.Embedding(num_items, num_factors)
        self.U, self.V = nn.Embedding(num_users, num_factors), nn.Embedding(num_items, num_factors)
        self.mlp = nn.Sequential()
        for num_hiddens in nums_hiddens:
            self.mlp.add(nn.Dense(num_hiddens, activation='relu', use_bias=True))
        self.prediction_layer = nn.Dense(1, activation='sigmoid', use_bias=False)

    def forward(self, user_id, item_id):
        product = self.P(user_id) * self.Q(item_id)
        mlp = self.mlp(np.concatenate([self.U(user_id), self.V(item_id)], axis=1))
        return self.prediction_layer(np.concatenate([product, mlp], axis=1))


class Noise(gluon.data.Dataset):
    """Section 16.6: a random item that the user has not met goes with each one that is liked."""

    def __init__(self, users, items, candidates, num_items):
        self.users, self.items, self.candidates = users, items, candidates
        self.all = set(range(num_items))

    def __len__(self):
        return len(self.users)

    def __getitem__(self, idx):
        others = list(self.all - set(self.candidates[int(self.users[idx])]))
        return self.users[idx], self.items[idx], others[random.randint(0, len(others) - 1)]


def readers_evaluation(net, test_input, seq, candidates, num_users, num_items, devices):
    """Section 16.6: a loader for each user."""
    hits, aucs = [], []
    for u in range(num_users):
        item_ids = sorted(set(range(num_items)) - set(candidates[int(u)]))
        user_ids = [u] * len(item_ids)
        x = [np.array(user_ids)] + ([] if seq is None else [seq[user_ids, :]])
        scores = []
        for values in gluon.data.DataLoader(gluon.data.ArrayDataset(*x, np.array(item_ids)),
                                            shuffle=False, last_batch='keep', batch_size=1024):
            x = [gluon.utils.split_and_load(v, devices, even_split=False) for v in values]
            scores.extend([list(net(*t).asnumpy()) for t in zip(*x)])
        scores = [item for sublist in scores for item in sublist]
        ranked = sorted(zip(item_ids, scores), key=lambda t: t[1], reverse=True)
        hit, auc = d2l.hit_and_auc([item for item, _ in ranked], test_input[u], 50)
        hits.append(hit)
        aucs.append(auc)
    return np.mean(np.array(hits)), np.mean(np.array(aucs))


def implicit_feedback():
    df, num_users, num_items = d2l.read_data_ml100k()
    parts = d2l.split_data_ml100k(df, num_users, num_items, 'seq-aware')
    users, items, _, candidates = d2l.load_data_ml100k(parts[0], num_users, num_items,
                                                       feedback='implicit')
    test_input = d2l.load_data_ml100k(parts[1], num_users, num_items, feedback='implicit')[3]
    return users, items, candidates, test_input, num_users, num_items


@pytest.mark.slow
def test_ranking(hub_data, reader):
    """Sections 16.5 and 16.6."""
    hub_data('ml-100k', real=False)
    users, items, candidates, test_input, num_users, num_items = implicit_feedback()
    train_iter = gluon.data.DataLoader(Noise(users, items, candidates, num_items), 64, True,
                                       last_batch='rollover',
                                       num_workers=d2l.get_dataloader_workers())
    devices = d2l.try_all_gpus()
    net = NeuralFactors(4, num_users, num_items, nums_hiddens=[4, 4])
    net.initialize(ctx=devices, force_reinit=True, init=mx.init.Normal(0.01))
    trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.01, 'wd': 1e-5})
    # A loader for each of a few users is slow enough: gluon's collects garbage when it is made.
    few = 4
    for loss, evaluator, count in ((d2l.BPRLoss(), d2l.evaluate_ranking, num_users),
                                   (d2l.HingeLossbRec(), readers_evaluation, few)):
        d2l.train_ranking(net, train_iter, test_input, loss, trainer, None, count, num_items, 1,
                          devices, evaluator, candidates)
    print(float(loss(np.ones(3), np.zeros(3))))
    theirs = readers_evaluation(net, test_input, None, candidates, few, num_items, devices)
    ours = d2l.evaluate_ranking(net, test_input, None, candidates, few, num_items, devices)
    assert [round(float(x), 5) for x in theirs] == [round(x, 5) for x in ours]
    assert reader().count('test hit rate ') == 2


class SequenceNet(nn.Block):
    """Section 16.7: convolutions over the last L items, down and across."""

    def __init__(self, num_factors, num_users, num_items, L=3, d=4, d_prime=2, **kwargs):
        super().__init__(**kwargs)
        self.P, self.Q = nn.Embedding(num_users, num_factors), nn.Embedding(num_items, num_factors)
        self.conv_v = nn.Conv2D(d_prime, (L, 1), in_channels=1)
        self.conv_h, self.max_pool = nn.Sequential(), nn.Sequential()
        for i in range(1, L + 1):
            self.conv_h.add(nn.Conv2D(d, (i, num_factors), in_channels=1))
            self.max_pool.add(nn.MaxPool1D(L - i + 1))
        self.width = d_prime * num_factors
        self.fc = nn.Dense(in_units=self.width + d * L, activation='relu', units=num_factors)
        self.Q_prime, self.b = nn.Embedding(num_items, num_factors * 2), nn.Embedding(num_items, 1)
        self.dropout = nn.Dropout(0.05)

    def forward(self, user_id, seq, item_id):
        item_embs = np.expand_dims(self.Q(seq), 1)
        out = self.conv_v(item_embs)
        outs = [out.reshape(out.shape[0], self.width)]
        for conv, pool in zip(self.conv_h, self.max_pool):
            out = np.squeeze(npx.relu(conv(item_embs)), axis=3)
            outs.append(np.squeeze(pool(out), axis=2))
        z = self.fc(self.dropout(np.concatenate(outs, axis=1)))
        x = np.concatenate([z, self.P(user_id)], axis=1)
        return (x * np.squeeze(self.Q_prime(item_id))).sum(1) + np.squeeze(self.b(item_id))


class Windows(gluon.data.Dataset):
    """Section 16.7: rows of arrays that are written one by one."""

    def __init__(self, user_ids, item_ids, L, num_users, num_items, candidates):
        user_ids, item_ids = np.array(user_ids), np.array(item_ids)
        order = np.array(sorted(range(len(user_ids)), key=lambda k: user_ids[k]))
        u_ids, i_ids = user_ids[order], item_ids[order]
        places = {}
        for i, user in enumerate(u_ids.asnumpy()):
            places.setdefault(user, []).append(i)
        counts = np.array([len(of_user) for of_user in places.values()])
        rows = int(sum([c - L if c >= L + 1 else 0 for c in counts]))
        self.seq_items, self.seq_users = np.zeros((rows, L)), np.zeros(rows, dtype='int32')
        self.seq_tgt, self.test_seq = np.zeros((rows, 1)), np.zeros((num_users, L))
        self.candidates, self.all_items, i = candidates, set(range(num_items)), 0
        for user, of_user in places.items():
            items = i_ids[of_user[0]:of_user[-1] + 1]
            if len(items) >= L:
                self.test_seq[int(user)][:] = items[-L:]
            for end in range(len(items), L, -1):
                self.seq_tgt[i][:] = items[end - 1:end]
                self.seq_items[i][:], self.seq_users[i] = items[end - L - 1:end - 1], int(user)
                i += 1

    def __len__(self):
        return len(self.seq_tgt)

    def __getitem__(self, idx):
        others = list(self.all_items - set(self.candidates[int(self.seq_users[idx])]))
        i = random.randint(0, len(others) - 1)
        return self.seq_users[idx], self.seq_items[idx], self.seq_tgt[idx], others[i]


def test_sequences(hub_data, reader):
    """Section 16.7."""
    hub_data('ml-100k', real=False)
    users, items, candidates, test_input, num_users, num_items = implicit_feedback()
    dataset = Windows(users, items, 3, num_users, num_items, candidates)
    print(dataset[0])
    train_iter = gluon.data.DataLoader(dataset, 32, True, last_batch='rollover',
                                       num_workers=d2l.get_dataloader_workers())
    devices, net = d2l.try_all_gpus(), SequenceNet(4, num_users, num_items)
    net.initialize(ctx=devices, force_reinit=True, init=mx.init.Normal(0.01))
    trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.04, 'wd': 1e-5})
    d2l.train_ranking(net, train_iter, test_input, d2l.BPRLoss(), trainer, dataset.test_seq,
                      num_users, num_items, 1, devices, d2l.evaluate_ranking, candidates,
                      eval_step=1)
    assert 'test AUC ' in reader()


class Machine(nn.Block):
    """Sections 16.9 and 16.10: pairs of features, and a deep part if there is one."""

    def __init__(self, field_dims, num_factors, mlp_dims=(), drop_rate=0.1):
        super().__init__()
        num_inputs = int(sum(field_dims))
        self.embedding, self.fc = nn.Embedding(num_inputs, num_factors), nn.Embedding(num_inputs, 1)
        self.linear_layer, self.mlp = nn.Dense(1, use_bias=True), nn.Sequential()
        self.embed_output_dim = input_dim = len(field_dims) * num_factors
        for dim in mlp_dims:
            self.mlp.add(nn.Dense(dim, 'relu', True, in_units=input_dim))
            self.mlp.add(nn.Dropout(rate=drop_rate))
            input_dim = dim
        self.deep = bool(mlp_dims)
        if self.deep:
            self.mlp.add(nn.Dense(in_units=input_dim, units=1))

    def forward(self, x):
        embed_x = self.embedding(x)
        square_of_sum = np.sum(embed_x, axis=1) ** 2
        sum_of_square = np.sum(embed_x ** 2, axis=1)
        x = self.linear_layer(self.fc(x).sum(1)) \
            + 0.5 * (square_of_sum - sum_of_square).sum(1, keepdims=True)
        if self.deep:
            x = x + self.mlp(np.reshape(embed_x, (-1, self.embed_output_dim)))
        return npx.sigmoid(x)


@pytest.mark.parametrize('mlp_dims', [(), (8, 4)], ids=['shallow', 'deep'])
def test_clicks(mlp_dims, hub_data, reader):
    """Sections 16.8 to 16.10."""
    hub_data('ctr', real=False)
    data_dir = d2l.download_extract('ctr')
    train_data = d2l.CTRDataset(os.path.join(data_dir, 'train.csv'))
    test_data = d2l.CTRDataset(os.path.join(data_dir, 'test.csv'),
                               feat_mapper=train_data.feat_mapper, defaults=train_data.defaults)
    print(train_data[0])
    workers = 0 if sys.platform.startswith('win') else d2l.get_dataloader_workers()
    train_iter, test_iter = (
        gluon.data.DataLoader(part, shuffle=part is train_data, last_batch='rollover',
                              batch_size=64, num_workers=workers)
        for part in (train_data, test_data))
    devices = d2l.try_all_gpus()
    net = Machine(train_data.field_dims, 4, mlp_dims)
    net.initialize(init.Xavier(), ctx=devices)
    trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.01})
    loss = gluon.loss.SigmoidBinaryCrossEntropyLoss()
    d2l.train_ch13(net, train_iter, test_iter, loss, trainer, 2, devices)
    assert 'test acc ' in reader()


def train_gan(net_D, net_G, data_iter, num_epochs, latent_shape, draw):
    """Sections 17.1 and 17.2: two losses above, what the generator makes of noise below."""
    loss = gluon.loss.SigmoidBCELoss()
    for net in (net_D, net_G):
        net.initialize(init=init.Normal(0.02), force_reinit=True, ctx=d2l.try_gpu())
    trainer_D, trainer_G = (gluon.Trainer(net.collect_params(), 'adam',
                                          {'learning_rate': 0.01, 'beta1': 0.5})
                            for net in (net_D, net_G))
    animator = d2l.Animator(xlabel='epoch', ylabel='loss', xlim=[1, num_epochs], nrows=2,
                            figsize=(5, 5), legend=['discriminator', 'generator'])
    animator.fig.subplots_adjust(hspace=0.3)
    for epoch in range(1, num_epochs + 1):
        timer, metric = d2l.Timer(), d2l.Accumulator(3)
        for batch in data_iter:
            X = batch[0] if isinstance(batch, (list, tuple)) else batch
            Z = np.random.normal(0, 1, size=(X.shape[0],) + latent_shape)
            metric.add(d2l.update_D(X, Z, net_D, net_G, loss, trainer_D),
                       d2l.update_G(Z, net_D, net_G, loss, trainer_G), X.shape[0])
        animator.axes[1].cla()
        draw(animator.axes[1], net_G(np.random.normal(0, 1, size=(14,) + latent_shape)))
        loss_D, loss_G = metric[0] / metric[2], metric[1] / metric[2]
        animator.add(epoch, (loss_D, loss_G))
    print(f'loss_D {loss_D:.3f}, loss_G {loss_G:.3f}, {metric[2] / timer.stop():.1f} examples/sec')
    return animator


def test_a_gan_of_points(reader):
    """Section 17.1."""
    X = d2l.normal(0.0, 1, (200, 2))
    A, b = d2l.tensor([[1, 2], [-0.1, 0.5]]), d2l.tensor([1, 2])
    data = d2l.matmul(X, A) + b
    d2l.set_figsize()
    d2l.plt.scatter(d2l.numpy(data[:100, 0]), d2l.numpy(data[:100, 1]))
    d2l.plt.scatter(data[:100, 0], data[:100, 1])
    print(f'The covariance matrix is\n{d2l.matmul(A.T, A)}')
    net_G, net_D = nn.Sequential(), nn.Sequential()
    net_G.add(nn.Dense(2))
    net_D.add(nn.Dense(5, activation='tanh'), nn.Dense(1))

    def draw(ax, fake_X):
        fake_X = fake_X.asnumpy()
        ax.scatter(data[:100, 0].asnumpy(), data[:100, 1].asnumpy())
        ax.scatter(fake_X[:, 0], fake_X[:, 1])
        ax.legend(['real', 'generated'])
    animator = train_gan(net_D, net_G, d2l.load_array((data,), 16), 2, (2,), draw)
    assert [len(y) for y in animator.Y] == [2, 2] and len(animator.axes[1].collections) == 2
    assert 'loss_D ' in reader()


def block(layer, channels, activation, **sizes):
    blk = nn.Sequential()
    blk.add(layer(channels, use_bias=False, **sizes), nn.BatchNorm(), activation)
    return blk


def test_a_gan_of_pictures(hub_data, reader):
    """Section 17.2: 16 x 16 instead of 64 x 64."""
    hub_data('pokemon', real=False)
    folder = gluon.data.vision.datasets.ImageFolderDataset(d2l.download_extract('pokemon'))
    transformer = gluon.data.vision.transforms.Compose([
        gluon.data.vision.transforms.Resize(16), gluon.data.vision.transforms.ToTensor(),
        gluon.data.vision.transforms.Normalize(0.5, 0.5)])
    data_iter = gluon.data.DataLoader(folder.transform_first(transformer), batch_size=32,
                                      shuffle=True, num_workers=d2l.get_dataloader_workers())
    for X, _ in data_iter:
        d2l.show_images(X[0:20, :, :, :].transpose(0, 2, 3, 1) / 2 + 0.5, num_rows=4, num_cols=5)
        break
    alphas = [0, 0.2, 0.4, 0.6, 0.8, 1]
    x = d2l.arange(-2, 1, 0.1)
    d2l.plt.figure()
    d2l.plot(d2l.numpy(x), [d2l.numpy(nn.LeakyReLU(alpha)(x)) for alpha in alphas], 'x', 'y',
             alphas)
    assert len(d2l.plt.gca().lines) == 6
    sizes = {'kernel_size': 4, 'strides': 2, 'padding': 1}
    net_G, net_D = nn.Sequential(), nn.Sequential()
    net_G.add(block(nn.Conv2DTranspose, 8, nn.Activation('relu'), kernel_size=4),
              block(nn.Conv2DTranspose, 4, nn.Activation('relu'), **sizes),
              nn.Conv2DTranspose(3, use_bias=False, activation='tanh', **sizes))
    net_D.add(block(nn.Conv2D, 4, nn.LeakyReLU(0.2), **sizes),
              block(nn.Conv2D, 8, nn.LeakyReLU(0.2), **sizes),
              nn.Conv2D(1, kernel_size=4, use_bias=False))

    def draw(ax, fake_x):
        fake_x = fake_x.transpose(0, 2, 3, 1) / 2 + 0.5
        rows = [np.concatenate([fake_x[i * 7 + j] for j in range(7)], axis=1) for i in range(2)]
        ax.imshow(np.concatenate(rows, axis=0).asnumpy())
    animator = train_gan(net_D, net_G, data_iter, 2, (6, 1, 1), draw)
    assert animator.axes[1].images[0].get_array().shape == (32, 112, 3)
    assert 'examples/sec' in reader()
