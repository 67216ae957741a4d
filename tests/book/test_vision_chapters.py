"""A reader's sessions with chapter 13: pictures, boxes, masks, and nets that are put together."""
import os

import numpy as onp
import pytest
from mxnet import autograd, gluon, image, init, np, npx
from mxnet.gluon import nn
from mxnet.gluon.data.vision import transforms

from d2l import mxnet as d2l


@pytest.fixture
def photo(shared_data):
    return image.imread(str(shared_data / 'd2l-img' / 'catdog.jpg'))


def test_augmentations(photo):
    """Section 13.1."""
    d2l.set_figsize()
    d2l.plt.imshow(photo.asnumpy())
    for aug in (transforms.RandomFlipLeftRight(), transforms.RandomBrightness(0.5),
                transforms.RandomHue(0.5),
                transforms.RandomResizedCrop((50, 50), scale=(0.1, 1), ratio=(0.5, 2)),
                transforms.Compose([transforms.RandomFlipTopBottom(), transforms.RandomColorJitter(
                    brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5)])):
        axes = d2l.show_images([aug(photo) for _ in range(2)], 1, 2, scale=1.5)
        assert len(axes) == 2 and all(len(ax.images) == 1 for ax in axes)
        d2l.plt.close('all')


def test_hot_dogs(hub_data, reader):
    """Section 13.2: the same cells twice, and a pretrained net's features in another net."""
    hub_data('hotdog', real=False)
    augs = transforms.Compose([
        transforms.RandomResizedCrop(32), transforms.RandomFlipLeftRight(),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    old_net = gluon.model_zoo.vision.resnet18_v2()
    old_net.initialize()
    old_net(np.zeros((1, 3, 32, 32)))
    for _ in range(2):
        d2l.DATA_HUB['hotdog'] = (d2l.DATA_URL + 'hotdog.zip', d2l.DATA_HUB['hotdog'][1])
        data_dir = d2l.download_extract('hotdog')
        train_imgs, test_imgs = (gluon.data.vision.ImageFolderDataset(os.path.join(data_dir, part))
                                 for part in ('train', 'test'))
        hotdogs = [train_imgs[i][0] for i in range(4)]
        others = [train_imgs[-i - 1][0] for i in range(4)]
        d2l.show_images(hotdogs + others, 2, 4, scale=1.4)
    net = gluon.model_zoo.vision.resnet18_v2(classes=2)
    net.features = old_net.features
    net.output.initialize(init.Xavier())
    net.output.collect_params().setattr('lr_mult', 10)
    train_iter, test_iter = (gluon.data.DataLoader(part.transform_first(augs), 8, shuffle=True)
                             for part in (train_imgs, test_imgs))
    devices = d2l.try_all_gpus()
    net.collect_params().reset_ctx(devices)
    net.hybridize()
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.01, 'wd': 0.001})
    d2l.train_ch13(net, train_iter, test_iter, loss, trainer, 1, devices)
    assert np.split(old_net.output.weight.data(), 1000, axis=0)[713].shape == (1, 512)
    assert reader().startswith('loss ')


def test_boxes_on_a_photo(photo):
    """Sections 13.3 to 13.5."""
    img = photo.asnumpy()
    h, w = img.shape[:2]
    fig = d2l.plt.imshow(img)
    fig.axes.add_patch(d2l.bbox_to_rect([60.0, 45.0, 378.0, 516.0], 'blue'))
    Y = npx.multibox_prior(np.random.uniform(size=(1, 3, h, w)), sizes=[0.75, 0.5, 0.25],
                           ratios=[1, 2, 0.5])
    boxes, scale = Y.reshape(h, w, 5, 4), np.array((w, h, w, h))
    d2l.show_bboxes(fig.axes, boxes[250, 250, :, :] * scale, ['s=0.75, r=1', 's=0.5, r=1'])
    truth = np.array([[0, 0.1, 0.08, 0.52, 0.92], [1, 0.55, 0.2, 0.9, 0.88]])
    anchors = np.array([[0, 0.1, 0.2, 0.3], [0.15, 0.2, 0.4, 0.4], [0.57, 0.3, 0.92, 0.9]])
    d2l.show_bboxes(fig.axes, truth[:, 1:] * scale, ['dog', 'cat'], 'k')
    d2l.show_bboxes(fig.axes, anchors * scale, ['0', '1', '2'])
    labels = npx.multibox_target(np.expand_dims(anchors, axis=0), np.expand_dims(truth, axis=0),
                                 np.zeros((1, 3, 3)))
    assert labels[2].shape == (1, 3)
    output = npx.multibox_detection(np.array([[[0, 0, 0], [0.9, 0.8, 0.1], [0.1, 0.2, 0.9]]]),
                                    np.zeros((1, 12)), np.expand_dims(anchors, axis=0),
                                    nms_threshold=0.5)
    before = len(fig.axes.patches)
    for row in output[0].asnumpy():
        if row[0] != -1:
            d2l.show_bboxes(fig.axes, [np.array(row[2:]) * scale],
                            ('dog=', 'cat=')[int(row[0])] + str(row[1]))
    assert len(fig.axes.patches) - before == 3
    assert fig.axes.texts[-1].get_text().startswith(('dog=0.', 'cat=0.'))
    anchors = npx.multibox_prior(np.zeros((1, 10, 4, 4)), sizes=[0.15], ratios=[1, 2, 0.5])
    d2l.show_bboxes(d2l.plt.imshow(img).axes, anchors[0] * scale)


class Detector(nn.Block):
    """Section 13.7 with two scales instead of five."""

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        for i in range(2):
            blk = nn.Sequential()
            for channels in (8, 16):
                blk.add(nn.Conv2D(channels, kernel_size=3, padding=1),
                        nn.BatchNorm(in_channels=channels), nn.Activation('relu'),
                        nn.MaxPool2D(2))
            setattr(self, f'blk_{i}', blk)
            setattr(self, f'cls_{i}', nn.Conv2D(4 * (num_classes + 1), kernel_size=3, padding=1))
            setattr(self, f'bbox_{i}', nn.Conv2D(4 * 4, kernel_size=3, padding=1))

    def forward(self, X):
        anchors, cls_preds, bbox_preds = [], [], []
        for i in range(2):
            X = getattr(self, f'blk_{i}')(X)
            anchors.append(npx.multibox_prior(X, sizes=[0.2 + 0.3 * i, 0.3 + 0.3 * i],
                                              ratios=[1, 2, 0.5]))
            cls_preds.append(getattr(self, f'cls_{i}')(X))
            bbox_preds.append(getattr(self, f'bbox_{i}')(X))
        flat = [np.concatenate([npx.batch_flatten(p.transpose(0, 2, 3, 1)) for p in preds], axis=1)
                for preds in (cls_preds, bbox_preds)]
        return (np.concatenate(anchors, axis=1),
                flat[0].reshape(flat[0].shape[0], -1, self.num_classes + 1), flat[1])


@pytest.mark.parametrize('real', [False, True])
def test_bananas(real, hub_data, reader):
    """Sections 13.6 and 13.7."""
    hub_data('bananas', real=real)
    train_iter, _ = d2l.load_data_bananas(4, 64)
    batch = train_iter.next()
    assert batch.data[0].shape == (4, 3, 64, 64) and batch.label[0].shape == (4, 1, 5)
    axes = d2l.show_images(batch.data[0][0:4].transpose(0, 2, 3, 1) / 255, 2, 2, scale=2)
    for ax, label in zip(axes, batch.label[0][0:4]):
        d2l.show_bboxes(ax, [label[0][1:5] * 64], colors=['w'])
    device, net = d2l.try_gpu(), Detector(num_classes=1)
    net.initialize(init=init.Xavier(), ctx=device)
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.05, 'wd': 5e-4})
    cls_loss, bbox_loss = gluon.loss.SoftmaxCrossEntropyLoss(), gluon.loss.L1Loss()
    animator = d2l.Animator(xlabel='epoch', xlim=[1, 2], legend=['class error', 'bbox mae'])
    timer = d2l.Timer()
    for epoch in range(2):
        metric = d2l.Accumulator(4)
        train_iter.reset()
        for number, batch in enumerate(train_iter):
            timer.start()
            X, Y = batch.data[0].as_in_ctx(device), batch.label[0].as_in_ctx(device)
            with autograd.record():
                anchors, cls_preds, bbox_preds = net(X)
                bbox_labels, bbox_masks, cls_labels = npx.multibox_target(
                    anchors, Y, cls_preds.transpose(0, 2, 1))
                l = (cls_loss(cls_preds, cls_labels)
                     + bbox_loss(bbox_preds * bbox_masks, bbox_labels * bbox_masks))
            l.backward()
            trainer.step(4)
            right = cls_preds.argmax(axis=-1).astype(cls_labels.dtype) == cls_labels
            metric.add(float(right.sum()), cls_labels.size,
                       float(np.abs((bbox_labels - bbox_preds) * bbox_masks).sum()),
                       bbox_labels.size)
            if number == 3:
                break
        animator.add(epoch + 1, (1 - metric[0] / metric[1], metric[2] / metric[3]))
    print(f'{train_iter.num_image / timer.stop():.1f} examples/sec on {str(device)}')
    assert len(animator.Y[0]) == 2
    img = batch.data[0][0].transpose(1, 2, 0).astype('uint8')
    X = np.expand_dims(image.imresize(img, 64, 64).astype('float32').transpose(2, 0, 1), axis=0)
    anchors, cls_preds, bbox_preds = net(X.as_in_ctx(device))
    output = npx.multibox_detection(npx.softmax(cls_preds).transpose(0, 2, 1), bbox_preds, anchors)
    idx = [i for i, row in enumerate(output[0]) if row[0] != -1]
    d2l.set_figsize((5, 5))
    fig = d2l.plt.imshow(img.asnumpy())
    for row in output[0, idx][:3]:
        scale = np.array((64, 64, 64, 64), ctx=row.ctx)
        d2l.show_bboxes(fig.axes, [row[2:6] * scale], '%.2f' % float(row[1]), 'w')
    assert len(fig.axes.texts) == 3
    assert reader().endswith('cpu(0)\n')


def test_curves_of_losses():
    """Section 13.7, exercises: arrays of MXNet straight to matplotlib."""
    x = np.arange(-2, 2, 0.1)
    for line, s in zip(['-', '--', '-.'], [10, 1, 0.5]):
        d2l.plt.plot(x, npx.smooth_l1(x, scalar=s), line, label='sigma=%.1f' % s)
    x = np.arange(0.01, 1, 0.01)
    for line, gamma in zip(['-', '--', '-.'], [0, 1, 5]):
        d2l.plt.plot(x, -(1 - x) ** gamma * np.log(x), line, label='gamma=%.1f' % gamma)
    d2l.plt.legend()
    assert [len(line.get_ydata()) for line in d2l.plt.gca().lines] == [40] * 3 + [99] * 3


def bilinear(in_channels, out_channels, kernel_size):
    """Section 13.11: written to ranges of two axes at once."""
    factor = (kernel_size + 1) // 2
    center = factor - 1 if kernel_size % 2 else factor - 0.5
    rows, columns = np.arange(kernel_size).reshape(-1, 1), np.arange(kernel_size).reshape(1, -1)
    filt = (1 - np.abs(rows - center) / factor) * (1 - np.abs(columns - center) / factor)
    weight = np.zeros((in_channels, out_channels, kernel_size, kernel_size))
    weight[range(in_channels), range(out_channels), :, :] = filt
    return np.array(weight)


def test_transposed_convolution():
    """Sections 13.10 and 13.11: kernels that are given as constants."""
    X, K = np.array([[0, 1], [2, 3]]), np.array([[0, 1], [2, 3]])
    Y = np.zeros((3, 3))
    for i in range(2):
        for j in range(2):
            Y[i:i + 2, j:j + 2] += X[i, j] * K
    tconv = nn.Conv2DTranspose(1, kernel_size=2)
    tconv.initialize(init.Constant(K.reshape(1, 1, 2, 2)))
    assert (tconv(X.reshape(1, 1, 2, 2))[0, 0] == Y).all()
    k, W = np.zeros(5), np.zeros((4, 9))
    k[:2], k[3:5] = K[0, :], K[1, :]
    W[0, :5], W[1, 1:6], W[2, 3:8], W[3, 4:] = k, k, k, k
    X = np.arange(9.0).reshape(3, 3)
    assert (d2l.corr2d(X, K) == np.dot(W, X.reshape(-1)).reshape(2, 2)).all()
    up = nn.Conv2DTranspose(3, kernel_size=4, padding=1, strides=2)
    up.initialize(init.Constant(bilinear(3, 3, 4)))
    out = up(np.ones((1, 3, 8, 8)))[0].transpose(1, 2, 0)
    assert out.shape == (16, 16, 3) and (out[4:12, 4:12] == 1).all()
    d2l.plt.imshow(out.asnumpy())


def test_segmentation(hub_data, reader):
    """Sections 13.9 and 13.11: the package's loader and gluon's, and masks back to colours."""
    hub_data('voc2012', real=False)
    voc_dir = d2l.download_extract('voc2012', 'VOCdevkit/VOC2012')
    features, labels = d2l.read_voc_images(voc_dir, True)
    d2l.show_images(features[0:3] + labels[0:3], 2, 3)
    y = d2l.voc_label_indices(labels[0], d2l.build_colormap2label())
    print(y[5:8, 5:8], d2l.VOC_CLASSES[1])
    size = (32, 48)
    imgs = []
    for _ in range(3):
        imgs += d2l.voc_rand_crop(features[0], labels[0], *size)
    d2l.show_images(imgs[::2] + imgs[1::2], 2, 3)
    dataset = d2l.VOCSegDataset(True, size, voc_dir)
    for X, Y in gluon.data.DataLoader(dataset, 4, shuffle=True, last_batch='discard',
                                      num_workers=d2l.get_dataloader_workers()):
        assert X.shape == (4, 3) + size and Y.shape == (4,) + size
        break
    train_iter, test_iter = d2l.load_data_voc(4, size)
    net = nn.HybridSequential()
    for layer in gluon.model_zoo.vision.resnet18_v2().features[:6]:
        net.add(layer)
    net.add(nn.Conv2D(21, kernel_size=1),
            nn.Conv2DTranspose(21, kernel_size=8, padding=2, strides=4))
    devices = d2l.try_all_gpus()
    net.initialize(init=init.Xavier())
    net[-1].initialize(init.Constant(bilinear(21, 21, 8)), force_reinit=True)
    net.collect_params().reset_ctx(devices)
    loss = gluon.loss.SoftmaxCrossEntropyLoss(axis=1)
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.05, 'wd': 1e-3})
    d2l.train_ch13(net, train_iter, test_iter, loss, trainer, 1, devices)
    test_features, test_labels = d2l.read_voc_images(voc_dir, False)
    colormap, imgs = np.array(d2l.VOC_COLORMAP, ctx=devices[0], dtype='uint8'), []
    for feature, label in zip(test_features[:2], test_labels):
        X = image.fixed_crop(feature, 0, 0, 48, 32)
        batch = np.expand_dims(test_iter._dataset.normalize_image(X).transpose(2, 0, 1), axis=0)
        pred = net(batch.as_in_ctx(devices[0])).argmax(axis=1)
        pred = pred.reshape(pred.shape[1], pred.shape[2])
        imgs += [X, colormap[pred.astype('int32'), :], image.fixed_crop(label, 0, 0, 48, 32)]
    axes = d2l.show_images(imgs[::3] + imgs[1::3] + imgs[2::3], 3, 2, scale=2)
    assert sum(len(ax.images) for ax in axes) == 6
    assert 'examples/sec' in reader()


class Painting(nn.Block):
    """Section 13.12: a block whose only parameter is its output."""

    def __init__(self, shape, **kwargs):
        super().__init__(**kwargs)
        self.weight = self.params.get('weight', shape=shape)

    def forward(self):
        return self.weight.data()


def test_a_painting(photo, reader, tmp_path):
    """Section 13.12."""
    device = d2l.try_gpu()
    rgb_mean, rgb_std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    X = (image.imresize(photo, 48, 32).astype('float32') / 255 - rgb_mean) / rgb_std
    X = np.expand_dims(X.transpose(2, 0, 1), axis=0).as_in_ctx(device)
    features, net = gluon.model_zoo.vision.vgg11().features, nn.Sequential()
    for i in range(4):
        net.add(features[i])
    net.initialize(init.Xavier())

    def gram(Y):
        num_channels, n = Y.shape[1], Y.size // Y.shape[1]
        Y = Y.reshape(num_channels, n)
        return np.dot(Y, Y.T) / (num_channels * n)

    content, style = net(X), gram(net(X[:, :, ::-1]))
    painting = Painting(X.shape)
    painting.initialize(init.Constant(X), ctx=device, force_reinit=True)
    trainer = gluon.Trainer(painting.collect_params(), 'adam', {'learning_rate': 0.1})
    animator = d2l.Animator(xlabel='epoch', ylabel='loss', xlim=[1, 4], ncols=2, figsize=(7, 2.5),
                            legend=['content', 'style', 'TV'])
    for epoch in range(1, 5):
        with autograd.record():
            Y = painting()
            Z = net(Y)
            contents_l = [np.square(Z - content).mean()]
            styles_l = [np.square(gram(Z) - style).mean()]
            tv_l = 0.5 * (np.abs(Y[:, :, 1:, :] - Y[:, :, :-1, :]).mean()
                          + np.abs(Y[:, :, :, 1:] - Y[:, :, :, :-1]).mean())
            l = sum(styles_l + contents_l + [tv_l])
        l.backward()
        trainer.step(1)
        npx.waitall()
        if epoch % 2 == 0:
            trainer.set_learning_rate(trainer.learning_rate * 0.1)
            picture = (Y[0].transpose(1, 2, 0) * rgb_std + rgb_mean).clip(0, 1)
            animator.axes[1].imshow(picture.asnumpy())
            animator.add(epoch, [float(sum(contents_l)), float(sum(styles_l)), float(tv_l)])
    d2l.plt.imsave(str(tmp_path / 'painting.png'), picture.asnumpy())
    assert (tmp_path / 'painting.png').stat().st_size > 0
    assert len(animator.axes[1].images) == 2 and len(animator.Y) == 3


def test_kaggle(hub_data, reader):
    """Sections 13.13 and 13.14, the reorganisation twice."""
    hub_data('cifar10_tiny', real=False)
    data_dir = d2l.download_extract('cifar10_tiny')
    labels = d2l.read_csv_labels(os.path.join(data_dir, 'trainLabels.csv'))
    print('# training examples:', len(labels), '# classes:', len(set(labels.values())))
    for _ in range(2):
        d2l.reorg_train_valid(data_dir, labels, 0.1)
        d2l.reorg_test(data_dir)
    train_ds, valid_ds, all_ds, test_ds = (
        gluon.data.vision.ImageFolderDataset(os.path.join(data_dir, 'train_valid_test', part))
        for part in ('train', 'valid', 'train_valid', 'test'))
    augs = transforms.Compose([transforms.Resize(40), transforms.RandomResizedCrop(
        32, scale=(0.64, 1.0), ratio=(1.0, 1.0)), transforms.ToTensor()])
    train_iter, valid_iter, test_iter = (
        gluon.data.DataLoader(part.transform_first(augs), 8, shuffle=part is train_ds,
                              last_batch='discard' if part is valid_ds else 'keep')
        for part in (train_ds, valid_ds, test_ds))
    devices, net = d2l.try_all_gpus(), nn.HybridSequential()
    net.add(nn.Conv2D(4, kernel_size=5, strides=4, activation='relu'), nn.Dense(10))
    net.initialize(ctx=devices, init=init.Xavier())
    net.hybridize()
    loss, timer = gluon.loss.SoftmaxCrossEntropyLoss(), d2l.Timer()
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.1, 'momentum': 0.9})
    animator = d2l.Animator(xlabel='epoch', xlim=[0, 1], legend=['train loss', 'train acc',
                                                                 'valid acc'])
    metric = d2l.Accumulator(3)
    for features, classes in train_iter:
        timer.start()
        l, acc = d2l.train_batch_ch13(net, features, classes.astype('float32'), loss, trainer,
                                      devices, d2l.split_batch)
        metric.add(l, acc, classes.shape[0])
        timer.stop()
    animator.add(0.5, (metric[0] / metric[2], metric[1] / metric[2], None))
    animator.add(1, (None, None, d2l.evaluate_accuracy_gpus(net, valid_iter, d2l.split_batch)))
    preds = []
    for X, _ in test_iter:
        preds.extend(net(X.as_in_ctx(devices[0])).argmax(axis=1).astype(int).asnumpy())
    table = d2l.pd.DataFrame({'id': sorted(range(1, len(test_ds) + 1), key=str), 'label': preds})
    table['label'] = table['label'].apply(lambda x: all_ds.synsets[x])
    table.to_csv('submission.csv', index=False)
    assert len(open('submission.csv').readlines()) == len(test_ds) + 1
    total = 0.0
    for X, y in valid_iter:
        X_shards, y_shards = d2l.split_batch(X, y, devices)
        total += sum(float(loss(net(X_shard), y_shard).sum())
                     for X_shard, y_shard in zip(X_shards, y_shards))
    assert onp.isfinite(total) and len(train_ds) + len(valid_ds) == len(all_ds)
