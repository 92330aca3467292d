#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hessian traces and eigenvalues by PyTorch's double backward, to compare with mpqc's.

    python3 record.py [--data DIR] > ../../unit/sensitivity_torch.def
    python3 record.py --model M.onnx --images X.npy --labels Y.npy --nhwc --mean a,b,c --std a,b,c

needs torch, onnx and numpy.  Without --model it measures the bundled classifiers on the
first images of Fashion-MNIST's test set and prints what tests/unit/test_sensitivity.c
compares with.  BatchNormalization is folded into the weights before, as mpqc does it.

Traces: Hutchinson's estimate, signs for all layers at once, one set for the whole batch;
the standard error is that over the probes.  Eigenvalues: power iteration by layer.
"""
import argparse
import gzip
import os
import platform
import sys
import time

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))
NETWORKS = os.path.join(HERE, "..", "..", "..", "tutorials", "networks")


def read_idx(path):
    with gzip.open(path) as f:
        raw = f.read()
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


DEVICE = "cpu"


def tensor(t):
    """Numbers go to the device; integers (shapes, bounds) stay."""
    x = torch.from_numpy(numpy_helper.to_array(t).copy())
    return x.to(DEVICE) if x.is_floating_point() else x


class Network:
    """An ONNX graph as a function of its layers' weights."""

    def __init__(self, path):
        self.graph = onnx.load(path).graph
        self.const = {t.name: tensor(t) for t in self.graph.initializer}
        for n in self.graph.node:
            if n.op_type == "Constant":
                value = {a.name: a for a in n.attribute}["value"].t
                self.const[n.output[0]] = tensor(value)
            if n.op_type == "Identity" and n.input[0] in self.const:
                self.const[n.output[0]] = self.const[n.input[0]]
        self.weights, self.bias = {}, {}
        for n in self.graph.node:
            if n.op_type in ("Conv", "Gemm", "MatMul"):
                self.weights[n.name] = self.const[n.input[1]].clone()
                self.bias[n.name] = self.const[n.input[2]].clone() if len(n.input) > 2 else None
        self.folded = self.fold()
        self.names = list(self.weights)

    def fold(self):
        """BatchNormalization behind a Conv goes into its weights."""
        maker = {n.output[0]: n for n in self.graph.node}
        folded = set()
        for n in self.graph.node:
            if n.op_type != "BatchNormalization":
                continue
            conv = maker[n.input[0]]
            assert conv.op_type == "Conv"
            scale, bias, mean, var = (self.const[i].double() for i in n.input[1:5])
            a = scale / torch.sqrt(var + attributes(n).get("epsilon", 1e-5))
            w, b = self.weights[conv.name].double(), self.bias[conv.name]
            b = torch.zeros_like(mean) if b is None else b.double()
            self.weights[conv.name] = (w * a[:, None, None, None]).float()
            self.bias[conv.name] = ((b - mean) * a + bias).float()
            folded.add(n.output[0])
        return folded

    def run(self, x, weights):
        v = dict(self.const)
        v[self.graph.input[0].name] = x
        for n in self.graph.node:
            if n.op_type == "Constant" or n.output[0] in v:
                continue
            v[n.output[0]] = self.node(n, [v[i] if i else None for i in n.input], weights)
        return v[self.graph.output[0].name]

    def node(self, n, i, weights):
        at, op = attributes(n), n.op_type
        if op == "Conv":
            pads = at.get("pads", [0, 0, 0, 0])
            x = F.pad(i[0], (pads[1], pads[3], pads[0], pads[2]))
            return F.conv2d(x, weights[n.name], self.bias[n.name], at.get("strides", 1), 0,
                            at.get("dilations", 1), at.get("group", 1))
        if op == "Gemm":
            w = weights[n.name]
            return i[0] @ (w.T if at.get("transB") else w) + self.bias[n.name]
        if op == "MatMul":
            return i[0] @ weights[n.name]
        if op == "BatchNormalization":
            return i[0]
        if op == "Reshape":
            return i[0].reshape([i[0].shape[0]] + i[1].tolist()[1:])
        if op == "Flatten":
            return i[0].flatten(at.get("axis", 1))
        if op == "ReduceMean":
            axes = at["axes"] if "axes" in at else i[1].tolist()
            return i[0].mean(tuple(axes), keepdim=bool(at.get("keepdims", 1)))
        if op == "AveragePool":
            assert not any(at.get("pads", [0]))
            return F.avg_pool2d(i[0], at["kernel_shape"], at.get("strides", 1))
        if op == "Slice":
            axes = i[3].tolist() if len(i) > 3 else range(len(i[1]))
            steps = i[4].tolist() if len(i) > 4 else [1] * len(i[1])
            for begin, end, axis, step in zip(i[1].tolist(), i[2].tolist(), axes, steps):
                index = torch.arange(i[0].shape[axis], device=DEVICE)[slice(begin, end, step)]
                i[0] = i[0].index_select(axis, index)
            return i[0]
        if op == "Pad":
            half = len(i[1]) // 2
            pairs = [(int(i[1][k]), int(i[1][half + k])) for k in range(half)]
            return F.pad(i[0], [p for pair in reversed(pairs) for p in pair])
        simple = {
            "Relu": torch.relu, "Sigmoid": torch.sigmoid, "Add": torch.add, "Mul": torch.mul,
            "Identity": lambda x: x, "HardSwish": lambda x: x * (x / 6 + 0.5).clamp(0, 1),
            "HardSigmoid": lambda x: (x * at.get("alpha", 0.2) + at.get("beta", 0.5)).clamp(0, 1),
            "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
        }
        if op not in simple:
            sys.exit("record.py does not know the operator " + op)
        return simple[op](*i)


def attributes(n):
    return {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute}


def loss_of(net, x, y, leaves):
    return F.cross_entropy(net.run(x, leaves), y)


def traces(net, x, y, probes, seed):
    """Per layer: trace and standard error; and the seconds that one probe took."""
    torch.manual_seed(seed)
    leaves = {k: w.clone().requires_grad_() for k, w in net.weights.items()}
    w = [leaves[k] for k in net.names]
    g = torch.autograd.grad(loss_of(net, x, y, leaves), w, create_graph=True)
    found = np.zeros((probes, len(w)))
    seconds = []
    for p in range(probes):
        start = time.perf_counter()
        v = [torch.randint(0, 2, t.shape, device=DEVICE).float() * 2 - 1 for t in w]
        slope = sum((a * b).sum() for a, b in zip(g, v))
        hv = torch.autograd.grad(slope, w, retain_graph=True)
        found[p] = [float((a.double() * b.double()).sum()) for a, b in zip(hv, v)]
        seconds.append(time.perf_counter() - start)
    return found.mean(0), found.std(0, ddof=1) / np.sqrt(probes), min(seconds)


def top(net, x, y, name, seed, steps=60):
    """Largest eigenvalue of one layer's block, by power iteration."""
    torch.manual_seed(seed)
    leaves = dict(net.weights)
    w = leaves[name] = net.weights[name].clone().requires_grad_()
    (g,) = torch.autograd.grad(loss_of(net, x, y, leaves), w, create_graph=True)
    v = torch.randn(w.shape, device=DEVICE)
    v /= v.norm()
    value = 0.0
    for _ in range(steps):
        (hv,) = torch.autograd.grad((g * v).sum(), w, retain_graph=True)
        before, value = value, float((hv * v).sum())
        v = hv / hv.norm()
        if abs(value - before) < 1e-4 * abs(value):
            break
    return value


def show(network, net, x, y, args):
    trace, error, seconds = traces(net, x, y, args.probes, args.seed)
    print("/* %s: %d samples, %d probes, %d threads */" %
          (network, len(x), args.probes, torch.get_num_threads()))
    if args.model:
        print("/* one probe, the quickest of them: %.3f s */" % seconds)
    for i, name in enumerate(net.names):
        line = '%s", "%s"' % (network, name)
        print('TRACE("%s, %.6g, %.3g)' % (line, trace[i], error[i]))
        if not args.no_top:
            print('TOP("%s, %.6g)' % (line, top(net, x, y, name, args.seed)))
        sys.stdout.flush()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    p.add_argument("--samples", type=int, default=32)
    p.add_argument("--probes", type=int, default=400)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--device", default="cpu")
    p.add_argument("--no-top", action="store_true")
    p.add_argument("--model")
    p.add_argument("--images")
    p.add_argument("--labels")
    p.add_argument("--nhwc", action="store_true")
    p.add_argument("--mean", default="0")
    p.add_argument("--std", default="1")
    args = p.parse_args()
    global DEVICE
    DEVICE = args.device
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    where = platform.machine() if DEVICE == "cpu" else torch.cuda.get_device_name()
    print("/* SPDX-License-Identifier: GPL-3.0-or-later")
    print(" * Hessians by PyTorch's double backward, of the cross-entropy with labels.")
    print(" * TRACE(network, node, trace by the weights, its standard error)")
    print(" * TOP(network, node, largest eigenvalue)")
    print(" * Made by tests/bench/metrics/record.py, seed %d, with torch %s, onnx %s, numpy %s,"
          % (args.seed, torch.__version__, onnx.__version__, np.__version__))
    print(" * Python %s on %s. */" % (platform.python_version(), where))
    if args.model:
        x = np.load(args.images)[:args.samples].astype(np.float32) / 255
        x = x.transpose(0, 3, 1, 2) if args.nhwc else x
        shape = (1, -1, 1, 1)
        mean, std = (np.array([float(t) for t in s.split(",")], np.float32).reshape(shape)
                     for s in (args.mean, args.std))
        x = torch.from_numpy(np.ascontiguousarray((x - mean) / std))
        y = torch.from_numpy(np.load(args.labels)[:args.samples].astype(np.int64))
        show(os.path.basename(args.model), Network(args.model), x.to(DEVICE), y.to(DEVICE), args)
        return
    x = read_idx(os.path.join(args.data, "t10k-images-idx3-ubyte.gz"))[:args.samples, None]
    y = torch.from_numpy(read_idx(os.path.join(args.data, "t10k-labels-idx1-ubyte.gz"))
                         [:args.samples].astype(np.int64))
    x = torch.from_numpy((x.astype(np.float32) / 255 - 0.2860) / 0.3530).float()
    for network in ("fashion_resnet", "fashion_mobile"):
        path = os.path.join(NETWORKS, network + ".onnx")
        show(network, Network(path), x.to(DEVICE), y.to(DEVICE), args)


if __name__ == "__main__":
    main()
