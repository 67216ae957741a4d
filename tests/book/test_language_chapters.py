"""A reader's sessions with chapters 14 and 15: word vectors, BERT, and nets that use them."""
import json
import multiprocessing
import os

import pytest
from mxnet import autograd, gluon, init, np, npx
from mxnet.gluon import nn, rnn

from d2l import mxnet as d2l


def test_words_and_noise(hub_data, reader):
    """Section 14.3."""
    hub_data('ptb', real=False)
    sentences = d2l.read_ptb()
    vocab = d2l.Vocab(sentences, min_freq=10)
    print(f'# sentences: {len(sentences)}, vocab size: {len(vocab)}')
    subsampled = d2l.subsampling(sentences, vocab)
    d2l.set_figsize()
    d2l.plt.hist([[len(line) for line in sentences], [len(line) for line in subsampled]])
    d2l.plt.legend(['origin', 'subsampled'])
    counts = d2l.count_corpus(sentences)
    assert counts['the'] == sum(line.count('the') for line in sentences)
    corpus = [vocab[line] for line in subsampled]
    for center, context in zip(*d2l.get_centers_and_contexts([list(range(7)), [7, 8, 9]], 2)):
        print('center', center, 'has contexts', context)
    centers, contexts = d2l.get_centers_and_contexts(corpus, 5)
    negatives = d2l.get_negatives(contexts, corpus, 5)
    generator = d2l.RandomGenerator([2, 3, 4])
    assert {generator.draw() for _ in range(50)} <= {0, 1, 2}
    names = ['centers', 'contexts_negatives', 'masks', 'labels']
    for name, data in zip(names, d2l.batchify(((1, [2, 2], [3, 3, 3, 3]), (1, [2, 2, 2], [3, 3])))):
        print(name, '=', data)
    loader = gluon.data.DataLoader(gluon.data.ArrayDataset(centers, contexts, negatives), 16,
                                   shuffle=True, batchify_fn=d2l.batchify,
                                   num_workers=d2l.get_dataloader_workers())
    for batch in loader:
        for name, data in zip(names, batch):
            print(name, 'shape:', data.shape)
        break
    assert reader().count('shape: (16, ') == 4


def test_word2vec(hub_data, reader):
    """Section 14.4."""
    hub_data('ptb', real=False)
    data_iter, vocab = d2l.load_data_ptb(64, 3, 3)
    net, device = nn.Sequential(), d2l.try_gpu()
    net.add(nn.Embedding(input_dim=len(vocab), output_dim=8),
            nn.Embedding(input_dim=len(vocab), output_dim=8))
    print(net[0].weight)
    net.initialize(ctx=device, force_reinit=True)
    loss = gluon.loss.SigmoidBCELoss()
    trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.01})
    animator = d2l.Animator(xlabel='epoch', ylabel='loss', xlim=[0, 1])
    timer, metric = d2l.Timer(), d2l.Accumulator(2)
    for i, batch in enumerate(data_iter):
        center, context_negative, mask, label = [data.as_in_ctx(device) for data in batch]
        with autograd.record():
            pred = npx.batch_dot(net[0](center), net[1](context_negative).swapaxes(1, 2))
            l = loss(pred.reshape(label.shape), label, mask) / mask.sum(axis=1) * mask.shape[1]
        l.backward()
        trainer.step(64)
        metric.add(l.sum(), l.size)
        if (i + 1) % 10 == 0:
            animator.add((i + 1) / len(data_iter), (metric[0] / metric[1],))
            if i > 20:
                break
    print(f'loss {metric[0] / metric[1]:.3f}, {metric[1] / timer.stop():.1f} tokens/sec on '
          f'{str(device)}')
    W = net[0].weight.data()
    x = W[vocab['the']]
    cos = np.dot(W, x) / np.sqrt(np.sum(W * W, axis=1) * np.sum(x * x) + 1e-9)
    topk = npx.topk(cos, k=4, ret_typ='indices').asnumpy().astype('int32')
    for i in topk[1:]:
        print('cosine sim=%.3f: %s' % (cos[i], vocab.idx_to_token[i]))
    assert topk[0] == vocab['the']
    assert reader().count('cosine sim=') == 3


def test_similar_words(hub_data, reader):
    """Section 14.7."""
    hub_data('glove.6b.50d', real=False)
    embed = d2l.TokenEmbedding('glove.6b.50d')
    print(len(embed), embed.token_to_idx['time'], embed.idx_to_token[3])

    def nearest(x, k):
        W = embed.idx_to_vec
        cos = np.dot(W, x.reshape(-1,)) / (
            np.sqrt(np.sum(W * W, axis=1) + 1e-9) * np.sqrt((x * x).sum()))
        topk = npx.topk(cos, k=k, ret_typ='indices')
        return topk, [cos[int(i)] for i in topk]

    topk, cos = nearest(embed[['time']], 4)
    for i, c in zip(topk[1:], cos[1:]):
        print('cosine sim=%.3f: %s' % (float(c), embed.idx_to_token[int(i)]))
    assert embed.idx_to_token[int(topk[0])] == 'time'
    vecs = embed[['man', 'men', 'time']]
    topk, cos = nearest(vecs[1] - vecs[0] + vecs[2], 1)
    assert 0 <= int(topk[0]) < len(embed)
    assert (embed.idx_to_vec[np.array([0, 1])] == embed[['<unk>', embed.idx_to_token[1]]]).all()


class ReadersEncoder(nn.Block):
    """Section 14.8 in a plain block: positions cut to length where the device is known."""

    def __init__(self, vocab_size, num_hiddens, max_len=100, **kwargs):
        super().__init__(**kwargs)
        self.token_embedding = nn.Embedding(vocab_size, num_hiddens)
        self.segment_embedding = nn.Embedding(2, num_hiddens)
        self.blks = nn.Sequential()
        for _ in range(2):
            self.blks.add(d2l.EncoderBlock(num_hiddens, 16, 2, 0.2, True))
        self.pos_embedding = self.params.get('pos_embedding', shape=(1, max_len, num_hiddens))

    def forward(self, tokens, segments, valid_lens):
        X = self.token_embedding(tokens) + self.segment_embedding(segments)
        X = X + self.pos_embedding.data(ctx=X.ctx)[:, :X.shape[1], :]
        for blk in self.blks:
            X = blk(X, valid_lens)
        return X


@pytest.mark.parametrize('encoder', [
    lambda: ReadersEncoder(50, 8), lambda: d2l.BERTEncoder(50, 8, 16, 2, 2, 0.2)],
    ids=['reader', 'd2l'])
def test_bert_in_pieces(encoder):
    """Section 14.8."""
    encoder = encoder()
    encoder.initialize()
    tokens = np.random.randint(0, 50, (2, 8))
    segments = np.array([[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]])
    encoded_X = encoder(tokens, segments, None)
    assert encoded_X.shape == (2, 8, 8)
    assert encoder(tokens, segments, np.array([3, 8])).shape == (2, 8, 8)
    mlm, nsp = d2l.MaskLM(50, 8), d2l.NextSentencePred()
    mlm.initialize()
    nsp.initialize()
    mlm_Y_hat = mlm(encoded_X, np.array([[1, 5, 2], [6, 1, 5]]))
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    mlm_l = loss(mlm_Y_hat.reshape((-1, 50)), np.array([[7, 8, 9], [10, 20, 30]]).reshape(-1))
    assert mlm_l.shape == (6,)
    assert loss(nsp(encoded_X), np.array([0, 1])).shape == (2,)


def test_pretraining(hub_data, reader):
    """Sections 14.9 and 14.10."""
    hub_data('wikitext-2', real=False)
    train_iter, vocab = d2l.load_data_wiki(32, 32)
    for (tokens_X, segments_X, valid_lens_x, pred_positions_X, mlm_weights_X, mlm_Y,
         nsp_y) in train_iter:
        print(tokens_X.shape, segments_X.shape, valid_lens_x.shape, pred_positions_X.shape,
              mlm_weights_X.shape, mlm_Y.shape, nsp_y.shape)
        break
    net = d2l.BERTModel(len(vocab), num_hiddens=8, ffn_num_hiddens=16, num_heads=2, num_layers=2,
                        dropout=0.2)
    devices = d2l.try_all_gpus()
    net.initialize(init.Xavier(), ctx=devices)
    loss = gluon.loss.SoftmaxCELoss()
    d2l.train_bert(train_iter, net, loss, len(vocab), devices, 1, 2)
    trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 1e-3})
    metric, animator = d2l.Accumulator(4), d2l.Animator(xlabel='step', ylabel='loss', xlim=[1, 2],
                                                        legend=['mlm', 'nsp'])
    for step, batch in zip(range(2), train_iter):
        shards = [gluon.utils.split_and_load(elem, devices, even_split=False) for elem in batch]
        with autograd.record():
            mlm_ls, nsp_ls, ls = d2l._get_batch_loss_bert(net, loss, len(vocab), *shards)
        for l in ls:
            l.backward()
        trainer.step(1)
        metric.add(sum(float(l) for l in mlm_ls), sum(float(l) for l in nsp_ls),
                   batch[0].shape[0], 1)
        animator.add(step + 1, (metric[0] / metric[3], metric[1] / metric[3]))

    def encoded(tokens_a, tokens_b=None):
        tokens, segments = d2l.get_tokens_and_segments(tokens_a, tokens_b)
        ids, segments, valid_len = (np.expand_dims(np.array(values, ctx=devices[0]), axis=0)
                                    for values in (vocab[tokens], segments, len(tokens)))
        return net(ids, segments, valid_len)[0]

    words = encoded(['time', 'is', 'short'])
    print(words.shape, words[:, 0, :].shape, words[:, 2, :][0][:3])
    assert words.shape == (1, 5, 8)
    assert encoded(['time', 'is'], ['it', 'was']).shape == (1, 7, 8)
    assert 'MLM loss ' in reader()


class BiRNN(nn.Block):
    """Section 15.2."""

    def __init__(self, vocab_size, embed_size, num_hiddens, num_layers, **kwargs):
        super().__init__(**kwargs)
        self.embedding = nn.Embedding(vocab_size, embed_size)
        self.encoder = rnn.LSTM(num_hiddens, num_layers=num_layers, bidirectional=True,
                                input_size=embed_size)
        self.decoder = nn.Dense(2)

    def forward(self, inputs):
        outputs = self.encoder(self.embedding(inputs.T))
        return self.decoder(np.concatenate((outputs[0], outputs[-1]), axis=1))


class TextCNN(nn.Block):
    """Section 15.3: a second embedding that is never trained."""

    def __init__(self, vocab_size, embed_size, num_hiddens, num_layers, **kwargs):
        super().__init__(**kwargs)
        self.embedding = nn.Embedding(vocab_size, embed_size)
        self.constant_embedding = nn.Embedding(vocab_size, embed_size)
        self.dropout, self.decoder = nn.Dropout(0.5), nn.Dense(2)
        self.pool, self.convs = nn.GlobalMaxPool1D(), nn.Sequential()
        for kernel_size in (3, 4):
            self.convs.add(nn.Conv1D(num_hiddens, kernel_size, activation='relu'))

    def forward(self, inputs):
        X = np.concatenate((self.embedding(inputs), self.constant_embedding(inputs)), axis=2)
        X = X.transpose(0, 2, 1)
        encoding = np.concatenate([np.squeeze(self.pool(conv(X)), axis=-1)
                                   for conv in self.convs], axis=1)
        return self.decoder(self.dropout(encoding))


@pytest.mark.parametrize('make', [BiRNN, TextCNN])
def test_sentiment(make, hub_data, reader):
    """Sections 15.1 to 15.3, the batches by the package and by hand."""
    hub_data('aclImdb', 'glove.6b.100d', real=False)
    data_dir = d2l.download_extract('aclImdb', 'aclImdb')
    reviews, labels = d2l.read_imdb(data_dir, is_train=True)
    for x, y in zip(reviews[:3], labels[:3]):
        print('label:', y, 'review:', x[0:60])
    lines = d2l.tokenize(reviews, token='word')
    vocab = d2l.Vocab(lines, min_freq=5, reserved_tokens=['<pad>'])
    d2l.set_figsize()
    d2l.plt.hist([len(line) for line in lines], bins=range(0, 1000, 50))
    features = np.array([d2l.truncate_pad(vocab[line], 20, vocab['<pad>']) for line in lines])
    for X, y in d2l.load_array((features, labels), 16):
        assert X.shape == (16, 20) and y.shape == (16,)
        break
    train_iter, test_iter, vocab = d2l.load_data_imdb(64, num_steps=20)
    net, devices = make(len(vocab), 100, 4, 2), d2l.try_all_gpus()
    net.initialize(init.Xavier(), ctx=devices)
    embeds = d2l.TokenEmbedding('glove.6b.100d')[vocab.idx_to_token]
    assert embeds.shape == (len(vocab), 100)
    frozen = getattr(net, 'constant_embedding', net.embedding)
    for embedding in (net.embedding, frozen):
        embedding.weight.set_data(embeds)
    frozen.collect_params().setattr('grad_req', 'null')
    trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.01})
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    d2l.train_ch13(net, train_iter, test_iter, loss, trainer, 1, devices)
    assert (frozen.weight.data() == embeds).all()
    assert d2l.predict_sentiment(net, vocab, 'this was so great') in ('positive', 'negative')
    words = np.array(vocab['it was so bad'.split()], ctx=d2l.try_gpu())
    label = np.argmax(net(np.concatenate([words, words]).reshape(1, -1)), axis=1)
    print('positive' if label == 1 else 'negative')
    assert 'examples/sec' in reader()


def mlp(num_hiddens, flatten):
    net = nn.Sequential()
    for _ in range(2):
        net.add(nn.Dropout(0.2), nn.Dense(num_hiddens, activation='relu', flatten=flatten))
    return net


class Decomposable(nn.Block):
    """Section 15.5: a list of two arrays as the only input."""

    def __init__(self, vocab, embed_size, num_hiddens, **kwargs):
        super().__init__(**kwargs)
        self.embedding = nn.Embedding(len(vocab), embed_size)
        self.f, self.g = mlp(num_hiddens, flatten=False), mlp(num_hiddens, flatten=False)
        self.h = mlp(num_hiddens, flatten=True)
        self.h.add(nn.Dense(3))

    def forward(self, X):
        premises, hypotheses = X
        A, B = self.embedding(premises), self.embedding(hypotheses)
        e = npx.batch_dot(self.f(A), self.f(B), transpose_b=True)
        beta = npx.batch_dot(npx.softmax(e), B)
        alpha = npx.batch_dot(npx.softmax(e.transpose(0, 2, 1)), A)
        V_A = self.g(np.concatenate([A, beta], axis=2)).sum(axis=1)
        V_B = self.g(np.concatenate([B, alpha], axis=2)).sum(axis=1)
        return self.h(np.concatenate([V_A, V_B], axis=1))


def test_inference_with_attention(hub_data, reader):
    """Sections 15.4 and 15.5."""
    hub_data('SNLI', 'glove.6b.100d', real=False)
    data_dir = d2l.download_extract('SNLI')
    train_data = d2l.read_snli(data_dir, is_train=True)
    for x0, x1, y in zip(train_data[0][:3], train_data[1][:3], train_data[2][:3]):
        print('premise:', x0, 'hypothesis:', x1, 'label:', y)
    print([[row for row in train_data[2]].count(i) for i in range(3)])
    train_set = d2l.SNLIDataset(train_data, 10)
    loader = gluon.data.DataLoader(train_set, 16, shuffle=True,
                                   num_workers=d2l.get_dataloader_workers())
    train_iter, test_iter, vocab = d2l.load_data_snli(64, 10)
    for data_iter in (loader, train_iter):
        for X, Y in data_iter:
            assert X[0].shape == X[1].shape == (len(Y), 10)
            break
    net, devices = Decomposable(vocab, 100, 8), d2l.try_all_gpus()
    net.initialize(init.Xavier(), ctx=devices)
    net.embedding.weight.set_data(d2l.TokenEmbedding('glove.6b.100d')[vocab.idx_to_token])
    trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.001})
    loss = gluon.loss.SoftmaxCrossEntropyLoss()

    def readers_split(X, y, devices):
        X = list(zip(*[gluon.utils.split_and_load(feature, devices, even_split=False)
                       for feature in X]))
        return X, gluon.utils.split_and_load(y, devices, even_split=False)
    for split_f in (d2l.split_batch_multi_inputs, readers_split):
        d2l.train_ch13(net, train_iter, test_iter, loss, trainer, 1, devices, split_f)
    answer = d2l.predict_snli(net, vocab, ['he', 'is', 'good', '.'], ['he', 'is', 'bad', '.'])
    assert answer in ('entailment', 'contradiction', 'neutral')
    assert reader().count('examples/sec') == 2


class PairDataset(gluon.data.Dataset):
    """Section 15.7: pairs that worker processes put together, which get the data set itself."""

    def __init__(self, dataset, max_len, vocab=None):
        pairs = [[p, h] for p, h in zip(*[d2l.tokenize([s.lower() for s in sentences])
                                          for sentences in dataset[:2]])]
        self.labels, self.vocab, self.max_len = np.array(dataset[2]), vocab, max_len
        with multiprocessing.Pool(2) as pool:
            out = pool.map(self._worker, pairs)
        self.token_ids = np.array([ids for ids, _, _ in out], dtype='int32')
        self.segments = np.array([segments for _, segments, _ in out], dtype='int32')
        self.valid_lens = np.array([valid_len for _, _, valid_len in out])
        print('read ' + str(len(self.token_ids)) + ' examples')

    def _worker(self, pair):
        premise, hypothesis = pair
        while len(premise) + len(hypothesis) > self.max_len - 3:
            (premise if len(premise) > len(hypothesis) else hypothesis).pop()
        tokens, segments = d2l.get_tokens_and_segments(premise, hypothesis)
        ids = d2l.truncate_pad(self.vocab[tokens], self.max_len, self.vocab['<pad>'])
        return ids, d2l.truncate_pad(segments, self.max_len, 0), len(tokens)

    def __getitem__(self, idx):
        return (self.token_ids[idx], self.segments[idx], self.valid_lens[idx]), self.labels[idx]

    def __len__(self):
        return len(self.token_ids)


class Classifier(nn.Block):
    def __init__(self, bert, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.hidden = bert.encoder, bert.hidden
        self.output = nn.Dense(3)

    def forward(self, inputs):
        tokens_X, segments_X, valid_lens_x = inputs
        encoded_X = self.encoder(tokens_X, segments_X, valid_lens_x)
        return self.output(self.hidden(encoded_X[:, 0, :]))


def test_inference_with_bert(hub_data, reader, tmp_path):
    """Section 15.7, with a model that a reader has saved."""
    hub_data('SNLI', real=False)
    sizes = {'num_hiddens': 8, 'ffn_num_hiddens': 16, 'num_heads': 2, 'num_layers': 2,
             'dropout': 0.1, 'max_len': 32}
    sentences = d2l.read_snli(d2l.download_extract('SNLI'), True)
    words = d2l.Vocab(d2l.tokenize(sentences[0]), 5, ['<pad>', '<mask>', '<cls>', '<sep>'])
    saved = d2l.BERTModel(len(words), **sizes)
    saved.initialize()
    saved(np.zeros((1, 8)), np.zeros((1, 8)), None, np.zeros((1, 2)))
    saved.save_parameters(str(tmp_path / 'pretrained.params'))
    (tmp_path / 'vocab.json').write_text(json.dumps(words.idx_to_token), encoding='utf-8')
    vocab = d2l.Vocab([])
    with open(os.path.join(str(tmp_path), 'vocab.json')) as file:
        vocab.idx_to_token = json.load(file)
    vocab.token_to_idx = {token: idx for idx, token in enumerate(vocab.idx_to_token)}
    devices = d2l.try_all_gpus()
    bert = d2l.BERTModel(len(vocab), **sizes)
    bert.load_parameters(os.path.join(str(tmp_path), 'pretrained.params'), ctx=devices)
    dataset = PairDataset([part[:96] for part in sentences], 24, vocab)
    train_iter = gluon.data.DataLoader(dataset, 32, shuffle=True,
                                       num_workers=d2l.get_dataloader_workers())
    net = Classifier(bert)
    net.output.initialize(ctx=devices)
    before = bert.encoder.token_embedding.weight.data().copy()
    trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 1e-3})
    d2l.train_ch13(net, train_iter, train_iter, gluon.loss.SoftmaxCrossEntropyLoss(), trainer, 1,
                   devices, d2l.split_batch_multi_inputs)
    assert (bert.encoder.token_embedding.weight.data() != before).any()
    assert 'read 96 examples' in reader()
