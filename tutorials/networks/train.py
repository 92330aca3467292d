#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trains the three bundled Fashion-MNIST networks and exports them as ONNX.

    python3 train.py [--data DIR] [--out DIR] [--only NAME] [--epochs N]

DIR of --data holds the four gzipped IDX files; Debian's package
dataset-fashion-mnist puts them into /usr/share/datasets/fashion-mnist.
A GPU is used when there is one.  Nothing is chosen by looking at the test
images: a fixed recipe runs to its end and the last weights are exported.
measure.py measures the exported files again, without PyTorch.
"""
import argparse
import gzip
import os
import platform
import time

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # repeatable GEMM

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import nn

SEED = 20221123
MEAN, STD = 0.2860, 0.3530  # of the training images divided by 255


# --- data -------------------------------------------------------------------

def read_idx(path):
    """One gzipped IDX file of bytes, as a uint8 array."""
    with gzip.open(path) as f:
        raw = f.read()
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load(folder, device):
    def get(name):
        return torch.tensor(read_idx(os.path.join(folder, name + ".gz")), device=device)
    return (get("train-images-idx3-ubyte"), get("train-labels-idx1-ubyte").long(),
            get("t10k-images-idx3-ubyte"), get("t10k-labels-idx1-ubyte").long())


def normalise(u8):
    return ((u8.float() / 255 - MEAN) / STD).unsqueeze(1)


def augment(x):
    """Mirror, shift by up to two pixels, blank one 8x8 square: per image."""
    n, dev = x.shape[0], x.device
    x = torch.where(torch.rand(n, 1, 1, 1, device=dev) < 0.5, x.flip(3), x)
    background = (0 - MEAN) / STD
    padded = F.pad(x, (2, 2, 2, 2), value=background)
    at = torch.arange(28, device=dev)
    rows = (torch.randint(0, 5, (n, 1), device=dev) + at).view(n, 1, 28, 1)
    cols = (torch.randint(0, 5, (n, 1), device=dev) + at).view(n, 1, 1, 28)
    x = padded[torch.arange(n, device=dev).view(n, 1, 1, 1), 0, rows, cols]
    cy = torch.randint(0, 28, (n, 1, 1, 1), device=dev)
    cx = torch.randint(0, 28, (n, 1, 1, 1), device=dev)
    at_y, at_x = at.view(1, 1, 28, 1), at.view(1, 1, 1, 28)
    hole = (at_y >= cy - 4) & (at_y < cy + 4) & (at_x >= cx - 4) & (at_x < cx + 4)
    return x.masked_fill(hole, 0.0)


# --- networks ---------------------------------------------------------------

def conv(cin, cout, k=3, stride=1, groups=1):
    return nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups, bias=False)


class Residual(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(cin, cout, 3, stride), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = conv(cout, cout), nn.BatchNorm2d(cout)
        self.shortcut = None
        if stride != 1 or cin != cout:
            self.shortcut = nn.Sequential(conv(cin, cout, 1, stride), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class FashionResnet(nn.Module):
    """Three stages of two residual blocks: 16, 32, 64 channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_bn = conv(1, 16), nn.BatchNorm2d(16)
        self.stage1 = nn.Sequential(Residual(16, 16, 1), Residual(16, 16, 1))
        self.stage2 = nn.Sequential(Residual(16, 32, 2), Residual(32, 32, 1))
        self.stage3 = nn.Sequential(Residual(32, 64, 2), Residual(64, 64, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.stem_bn(self.stem(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.head(torch.flatten(self.pool(x), 1))


class Separable(nn.Module):
    """Depthwise then pointwise, each with BatchNorm and an activation."""

    def __init__(self, cin, cout, stride, act):
        super().__init__()
        self.depthwise, self.bn1 = conv(cin, cin, 3, stride, cin), nn.BatchNorm2d(cin)
        self.pointwise, self.bn2 = conv(cin, cout, 1), nn.BatchNorm2d(cout)
        self.act = act

    def forward(self, x):
        x = self.act(self.bn1(self.depthwise(x)))
        return self.act(self.bn2(self.pointwise(x)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels, squeezed):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        gate = self.expand(F.relu(self.reduce(self.pool(x))))
        return x * F.hardsigmoid(gate)


class Inverted(nn.Module):
    """Expand, depthwise 5x5, squeeze-and-excite (optional), linear project, add."""

    def __init__(self, channels, expanded, act, squeezed=0):
        super().__init__()
        self.expand, self.bn1 = conv(channels, expanded, 1), nn.BatchNorm2d(expanded)
        self.depthwise, self.bn2 = conv(expanded, expanded, 5, 1, expanded), nn.BatchNorm2d(expanded)
        self.se = SqueezeExcite(expanded, squeezed) if squeezed else nn.Identity()
        self.project, self.bn3 = conv(expanded, channels, 1), nn.BatchNorm2d(channels)
        self.act = act

    def forward(self, x):
        y = self.act(self.bn1(self.expand(x)))
        y = self.se(self.act(self.bn2(self.depthwise(y))))
        return x + self.bn3(self.project(y))


class FashionMobile(nn.Module):
    """SiLU in the first half, hard-swish in the second."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_bn = conv(1, 16), nn.BatchNorm2d(16)
        self.block1 = Separable(16, 32, 1, nn.SiLU())
        self.block2 = Separable(32, 48, 2, nn.SiLU())
        self.block3 = Inverted(48, 96, nn.SiLU())
        self.block4 = Separable(48, 64, 2, nn.Hardswish())
        self.block5 = Inverted(64, 128, nn.Hardswish(), squeezed=32)
        self.last, self.last_bn = conv(64, 128, 1), nn.BatchNorm2d(128)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(128, 10)

    def forward(self, x):
        x = F.silu(self.stem_bn(self.stem(x)))
        x = self.block3(self.block2(self.block1(x)))
        x = self.block5(self.block4(x))
        x = F.hardswish(self.last_bn(self.last(x)))
        return self.head(torch.flatten(self.pool(x), 1))


class FashionAutoencoder(nn.Module):
    """784-128-64-16-64-128-784; linear bottleneck, pixels out through a sigmoid."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 128), nn.ReLU(),
                                     nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 16))
        self.decoder = nn.Sequential(nn.Linear(16, 64), nn.ReLU(),
                                     nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 784))

    def forward(self, x):
        return torch.sigmoid(self.decoder(self.encoder(x)))


# --- training ---------------------------------------------------------------

def fit(model, optimiser, peak, epochs, batch, count, loss_of):
    """Runs loss_of(indices) over shuffled batches under a one-cycle rate."""
    steps = epochs * (count // batch)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, steps, pct_start=0.2)
    model.train()
    device = next(model.parameters()).device
    start = time.time()
    for epoch in range(epochs):
        order = torch.randperm(count, device=device)
        total = torch.zeros((), device=device)
        for i in range(count // batch):
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(order[i * batch:(i + 1) * batch])
            loss.backward()
            optimiser.step()
            rate.step()
            total += loss.detach()
        if (epoch + 1) % 10 == 0 or epoch + 1 == epochs:
            print("  epoch %3d  loss %.5f  %4.0f s"
                  % (epoch + 1, total.item() / (count // batch), time.time() - start), flush=True)
    model.eval()


def train_classifier(model, data, epochs):
    images, labels, test_images, test_labels = data
    x, batch = normalise(images), 256
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.SGD([{"params": decayed, "weight_decay": 1e-3},
                                 {"params": others, "weight_decay": 0.0}],
                                lr=0.1, momentum=0.9, nesterov=True)

    def loss_of(pick):
        return F.cross_entropy(model(augment(x[pick])), labels[pick], label_smoothing=0.05)

    fit(model, optimiser, 0.2, epochs, batch, len(x), loss_of)
    with torch.no_grad():
        hits = sum((model(normalise(i)).argmax(1) == l).sum().item()
                   for i, l in zip(test_images.split(1000), test_labels.split(1000)))
    print("  test accuracy %.2f %%" % (100 * hits / len(test_labels)), flush=True)


def train_autoencoder(model, data, epochs):
    x, batch = data[0].float().flatten(1) / 255, 256
    optimiser = torch.optim.Adam(model.parameters())
    fit(model, optimiser, 3e-3, epochs, batch, len(x), lambda p: F.mse_loss(model(x[p]), x[p]))
    with torch.no_grad():
        t = data[2].float().flatten(1) / 255
        print("  test MSE %.5f" % F.mse_loss(model(t), t).item(), flush=True)


# --- export -----------------------------------------------------------------

def export(model, name, path, epochs, device_name, *, example, inputs, outputs,
           opset, fold, dynamic=None):
    """Writes one ONNX file.  fold=False keeps BatchNormalization nodes."""
    keep = torch.onnx.TrainingMode.PRESERVE  # a plain export fuses BN into Conv
    model = model.cpu().eval()
    torch.onnx.export(model, (example,), path, dynamo=False, opset_version=opset,
                      input_names=[inputs], output_names=[outputs], dynamic_axes=dynamic,
                      do_constant_folding=fold,
                      training=torch.onnx.TrainingMode.EVAL if fold else keep)
    proto = onnx.load(path)
    proto.graph.name = name
    for node in proto.graph.node:
        node.doc_string = ""  # else: source paths of the training machine
    facts = {"source": "tutorials/networks/train.py", "dataset": "Fashion-MNIST (MIT)",
             "seed": str(SEED), "epochs": str(epochs), "device": device_name,
             "versions": "Python %s, torch %s, onnx %s"
                         % (platform.python_version(), torch.__version__, onnx.__version__)}
    del proto.metadata_props[:]
    for key, value in facts.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    kinds = sorted({n.op_type for n in proto.graph.node})
    print("  wrote %s: %d bytes, %d nodes: %s"
          % (os.path.basename(path), os.path.getsize(path), len(proto.graph.node), " ".join(kinds)), flush=True)


NETWORKS = {  # name: class, trainer, epochs, export arguments
    "fashion_resnet": (FashionResnet, train_classifier, 70, dict(
        example=torch.zeros(1, 1, 28, 28), inputs="image", outputs="logits", opset=17, fold=False)),
    "fashion_mobile": (FashionMobile, train_classifier, 70, dict(
        example=torch.zeros(1, 1, 28, 28), inputs="image", outputs="logits", opset=17, fold=True,
        dynamic={"image": {0: "batch"}, "logits": {0: "batch"}})),
    "fashion_autoencoder": (FashionAutoencoder, train_autoencoder, 100, dict(
        example=torch.zeros(1, 784), inputs="pixels", outputs="reconstruction", opset=13, fold=True)),
}


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    args.add_argument("--out", default=os.path.dirname(os.path.abspath(__file__)))
    args.add_argument("--only", choices=sorted(NETWORKS))
    args.add_argument("--epochs", type=int, help="fewer epochs, for a quick try")
    args = args.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    device_name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    data = load(args.data, device)
    for name, (make, train, epochs, how) in NETWORKS.items():
        if args.only in (None, name):
            epochs = args.epochs or epochs
            torch.manual_seed(SEED)
            model = make().to(device)
            print("%s: %d parameters, %d epochs on %s"
                  % (name, sum(p.numel() for p in model.parameters()), epochs, device_name), flush=True)
            train(model, data, epochs)
            export(model, name, os.path.join(args.out, name + ".onnx"), epochs, device_name, **how)


if __name__ == "__main__":
    main()
