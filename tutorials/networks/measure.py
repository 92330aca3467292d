#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the bundled ONNX files with ONNX Runtime; writes what it finds.

    python3 measure.py [--data DIR]

needs onnx, onnxruntime and numpy.  It runs all 10,000 test images through
each file, rewrites networks.tsv (what scripts read) and the table in
PROVENANCE.md (what people read).
"""
import argparse
import gzip
import hashlib
import os
import platform

import numpy as np
import onnx
import onnxruntime as ort

HERE = os.path.dirname(os.path.abspath(__file__))
NETWORKS = [  # name, metric, mean, std: x = (pixel / 255 - mean) / std
    ("fashion_resnet", "top1", "0.2860", "0.3530"),
    ("fashion_mobile", "top1", "0.2860", "0.3530"),
    ("fashion_autoencoder", "mse", "0", "1"),
]
COLUMNS = ["name", "metric", "value", "mean", "std", "parameters", "macs", "bytes", "sha256"]


def read_idx(path):
    with gzip.open(path) as f:
        raw = f.read()
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def learned(model):
    """Parameters of the file as it is: BatchNorm statistics count, if left in."""
    return sum(int(np.prod(t.dims)) for t in model.graph.initializer)


def count_macs(model):
    """Multiply-accumulates of Conv and Gemm for one sample."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shape = {t.name: list(t.dims) for t in graph.initializer}
    for v in list(graph.value_info) + list(graph.output):
        shape[v.name] = [d.dim_value or 1 for d in v.type.tensor_type.shape.dim]
    macs = 0
    for node in graph.node:
        if node.op_type == "Conv":
            macs += int(np.prod(shape[node.output[0]])) * int(np.prod(shape[node.input[1]][1:]))
        elif node.op_type == "Gemm":
            macs += int(np.prod(shape[node.input[1]]))
    return macs


def measure(path, images, labels, metric, mean, std):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    shape = [1 if isinstance(d, str) else d for d in entry.shape]
    total = 0.0
    for image, label in zip(images, labels):
        pixels = image.astype(np.float32) / np.float32(255)
        x = ((pixels - np.float32(mean)) / np.float32(std)).reshape(shape)
        y = session.run(None, {entry.name: x})[0]
        total += float(np.mean((y - x) ** 2)) if metric == "mse" else float(y.argmax() == label)
    return total / len(images)


def provenance_table(rows, trained):
    lines = ["| file | float result, 10,000 test images | parameters | MACs | bytes | epochs | SHA-256 |",
             "|---|---|---|---|---|---|---|"]
    for row in rows:
        result = "%s %% top-1" % row["value"] if row["metric"] == "top1" else "MSE %s" % row["value"]
        lines.append("| `%s.onnx` | %s | %s | %s | %s | %s | `%s…` |" % (
            row["name"], result, format(row["parameters"], ","), format(row["macs"], ","),
            format(row["bytes"], ","), trained[row["name"]]["epochs"], row["sha256"][:16]))
    facts = next(iter(trained.values()))
    lines += ["", "Trained by `%s`, seed %s, on one %s with %s. Measured with ONNX Runtime %s, onnx %s, "
              "numpy %s, Python %s." % (facts["source"], facts["seed"], facts["device"], facts["versions"],
                                        ort.__version__, onnx.__version__, np.__version__,
                                        platform.python_version())]
    return "\n".join(lines)


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    args = args.parse_args()
    images = read_idx(os.path.join(args.data, "t10k-images-idx3-ubyte.gz"))
    labels = read_idx(os.path.join(args.data, "t10k-labels-idx1-ubyte.gz"))

    rows, trained = [], {}
    for name, metric, mean, std in NETWORKS:
        path = os.path.join(HERE, name + ".onnx")
        model = onnx.load(path)
        trained[name] = {p.key: p.value for p in model.metadata_props}
        value = measure(path, images, labels, metric, mean, std)
        with open(path, "rb") as f:
            raw = f.read()
        rows.append({"name": name, "metric": metric, "mean": mean, "std": std,
                     "value": "%.2f" % (100 * value) if metric == "top1" else "%.5f" % value,
                     "parameters": learned(model), "macs": count_macs(model),
                     "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()})
        print("\t".join(str(rows[-1][c]) for c in COLUMNS), flush=True)

    with open(os.path.join(HERE, "networks.tsv"), "w") as f:
        f.write("\t".join(COLUMNS) + "\n")
        f.writelines("\t".join(str(row[c]) for c in COLUMNS) + "\n" for row in rows)
    page = os.path.join(HERE, "PROVENANCE.md")
    with open(page) as f:
        before, rest = f.read().split("<!-- measured -->\n")
        after = rest.split("<!-- end -->")[1]
    with open(page, "w") as f:
        f.write(before + "<!-- measured -->\n" + provenance_table(rows, trained) + "\n<!-- end -->" + after)


if __name__ == "__main__":
    main()
