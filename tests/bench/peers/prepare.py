# SPDX-License-Identifier: GPL-3.0-or-later
"""From a network and samples to one file per engine, each by that engine's own recipe.

Everything is kept in a cache: the names of its files are made of the hash of the network
and its samples, and of the version of the engine that made them.
"""
import gzip
import hashlib
import os
import subprocess
import time
from importlib.metadata import version

import numpy as np
import onnx

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.normpath(os.path.join(HERE, "..", "..", ".."))
NETWORKS = os.path.join(ROOT, "tutorials", "networks")
FASHION = "/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz"
MADE_UP = 16  # samples, where the user gives none


class Trouble(Exception):
    """What the user is told, in one sentence."""


def digest(*parts):
    h = hashlib.sha256()
    for part in parts:
        h.update(part)
    return h.hexdigest()[:16]


def file_digest(path):
    with open(path, "rb") as f:
        return digest(f.read())


def fixed(path, shapes):
    """The network with every dimension of its inputs known: the batch becomes 1."""
    try:
        model = onnx.load(path)
    except Exception as e:  # protobuf's error or the operating system's
        raise Trouble(f"{path} cannot be read as an ONNX file: {e}") from e
    weights = {t.name for t in model.graph.initializer}
    inputs = [v for v in model.graph.input if v.name not in weights]
    for v in inputs:
        dims = v.type.tensor_type.shape.dim
        if v.name in shapes:
            if len(shapes[v.name]) != len(dims):
                raise Trouble(f"-shape of {v.name} has {len(shapes[v.name])} dimensions, "
                              f"the input in {path} has {len(dims)}")
            for d, n in zip(dims, shapes[v.name]):
                d.dim_value = n
        elif dims and not dims[0].dim_value:
            dims[0].dim_value = 1
        if not all(d.dim_value > 0 for d in dims):
            known = "x".join(str(d.dim_value or "N") for d in dims)
            raise Trouble(f"input {v.name} of {path} has unknown dimensions; give "
                          f"-shape={v.name}:{known} with a number for each N")
        if v.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            raise Trouble(f"input {v.name} of {path} is not f32; only f32 inputs are measured")
    del model.graph.value_info[:]  # it may repeat the dimensions that were just decided
    for v in model.graph.output:
        if not all(d.dim_value for d in v.type.tensor_type.shape.dim):
            v.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model), inputs


def one_relu(path):
    """The smallest network: what it takes is the price of a call."""
    io = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 64]) for n in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"], "relu")],
                                   "one_relu", io[:1], io[1:])
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=[
        onnx.helper.make_opsetid("", 17)]), path)


def fashion(name):
    """Samples for a bundled network, where Debian's dataset-fashion-mnist is installed."""
    with open(os.path.join(NETWORKS, "networks.tsv")) as f:
        rows = [line.rstrip("\n").split("\t") for line in f]
    row = next((dict(zip(rows[0], r)) for r in rows[1:] if r[0] == name), None)
    if row is None or not os.path.exists(FASHION):
        return None
    with gzip.open(FASHION) as f:
        pixels = np.frombuffer(f.read(16 + 64 * 784)[16:], np.uint8).astype(np.float32)
    return (pixels / 255 - float(row["mean"])) / float(row["std"])


def load(path):
    """Samples as the network reads them."""
    try:
        x = np.load(path)
    except (OSError, ValueError) as e:
        raise Trouble(f"{path} cannot be read as .npy: {e}") from e
    if x.dtype.kind != "f":
        raise Trouble(f"{path} holds {x.dtype}, but all engines get what the network itself "
                      "reads: save it as f32, normalised")
    if not len(x) or not np.isfinite(x).all():
        raise Trouble(f"{path} holds {'NaN or Inf' if len(x) else 'no samples'}")
    return x.astype(np.float32)


def samples_for(path, inputs, options):
    """One array per input, first axis: samples.  Says where they come from."""
    shapes = [tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in inputs]
    given = options.calib
    if not given and os.path.exists(path[:-5] + ".npy"):
        given = path[:-5] + ".npy"
    if given:
        if len(inputs) != 1:
            raise Trouble(f"{path} has {len(inputs)} inputs, -calib={given} has data for one; "
                          "leave -calib out")
        x = load(given)
        if x[:1].size != np.prod(shapes[0]):
            raise Trouble(f"a sample of {given} has {x[:1].size} numbers, "
                          f"input {inputs[0].name} of {path} wants {np.prod(shapes[0])}")
        return [x[:options.count].reshape((-1,) + shapes[0][1:])], os.path.basename(given)
    name = os.path.basename(path)[:-5]
    x = fashion(name) if os.path.dirname(os.path.abspath(path)) == NETWORKS else None
    if x is not None:
        return [x.reshape((-1,) + shapes[0][1:])], "Fashion-MNIST"
    rng, n = np.random.default_rng(0), min(MADE_UP, options.count)
    if options.range:
        low, high = options.range
        return [rng.uniform(low, high, (n,) + s[1:]).astype(np.float32)
                for s in shapes], f"random, uniform {low:g} to {high:g}"
    return [rng.standard_normal((n,) + s[1:], np.float32) for s in shapes], "random, normal"


class Network:
    """A network ready to measure: files[engine], or notes[engine] with the reason why not."""

    def __init__(self, name, path, options):
        self.name, self.path, self.options = name, path, options
        self.files, self.notes = {}, {}
        model, inputs = fixed(path, options.shapes)
        self.inputs = [v.name for v in inputs]
        unknown = set(options.shapes) - set(self.inputs)
        if unknown and options.networks == [path]:  # in lists other networks may have it
            raise Trouble(f"-shape names {unknown.pop()}, but the inputs of {path} are "
                          f"{', '.join(self.inputs)}")
        self.samples, self.source = samples_for(path, inputs, options)
        raw = model.SerializeToString(deterministic=True)
        self.key = digest(raw, *[np.ascontiguousarray(x).tobytes() for x in self.samples])
        self.folder = os.path.join(options.work, "cache", f"{name}-{self.key}")
        os.makedirs(self.folder, exist_ok=True)
        self.float = self.at("float.onnx")
        if not os.path.exists(self.float):
            onnx.save(model, self.float)
        self.arrays = [self.at(f"in{i}.npy") for i in range(len(inputs))]
        for file, x in zip(self.arrays, self.samples):
            np.save(file, x)

    def at(self, name):
        return os.path.join(self.folder, name)

    def make(self, engine, file, recipe):
        """Calls recipe(file) unless the file is there; a failure becomes a note."""
        file = self.at(file)
        if not os.path.exists(file):
            print(f"peers: {self.name}: preparing {engine}", flush=True)
            try:
                recipe(file)
            except Exception as e:  # any peer may fail in any way; the others go on
                self.notes[engine] = " ".join(str(e).split())[:300] or type(e).__name__
                print(f"peers: {self.name}: {engine} failed: {self.notes[engine]}")
                return
        self.files[engine] = file

    def feeds(self):
        for k in range(min(len(x) for x in self.samples)):
            yield {n: x[k:k + 1] for n, x in zip(self.inputs, self.samples)}

    def quantise_onnxruntime(self, file):
        """Pre-processing, then static QDQ: u8 activations, s8 weights, one scale a channel."""
        from onnxruntime import quantization as q
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(q.CalibrationDataReader):
            def __init__(self, feeds):
                self.feeds = feeds

            def get_next(self):
                return next(self.feeds, None)

        ready = self.at("ort-ready.onnx")
        quant_pre_process(self.float, ready, skip_symbolic_shape=True)
        q.quantize_static(ready, file + ".part", Reader(self.feeds()),
                          quant_format=q.QuantFormat.QDQ, per_channel=True,
                          activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8)
        os.replace(file + ".part", file)

    def quantise_openvino(self, file):
        """nncf.quantize with its defaults: the preset PERFORMANCE."""
        import nncf
        import openvino
        data = nncf.Dataset([list(feed.values()) if len(feed) > 1 else next(iter(feed.values()))
                             for feed in self.feeds()])
        model = nncf.quantize(openvino.convert_model(self.float), data,
                              subset_size=min(len(x) for x in self.samples))
        openvino.save_model(model, file, compress_to_fp16=False)

    def compile_mpqc(self, file, *flags):
        command = [self.options.mpqc, self.float, "-target=native", "-allow-float", *flags,
                   *self.options.mpqc_flags, "-o", file]
        if "-load-profile" not in "".join(flags):
            command += [f"-calib={n}:{a}" for n, a in zip(self.inputs, self.arrays)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Trouble(done.stderr.strip() or f"mpqc ended with status {done.returncode}")

    def prepare(self):
        self.files["onnxruntime float"] = self.float
        self.make("onnxruntime", f"ort-{version('onnxruntime')}.onnx", self.quantise_onnxruntime)
        self.make("openvino", f"ov-{version('openvino')}-nncf-{version('nncf')}.xml",
                  self.quantise_openvino)
        reference = self.path[:-5] + ".tflite"
        if os.path.exists(reference):
            self.files["litert"] = reference
        mpqc = digest(file_digest(self.options.mpqc).encode(),
                      " ".join(self.options.mpqc_flags).encode())
        self.make("mpqc", f"mpqc-{mpqc}.so", self.compile_mpqc)
        if "litert" in self.files:
            self.make("mpqc -io=int", f"mpqc-{mpqc}-int.so",
                      lambda file: self.compile_mpqc(file, "-io=int"))

    def compile_seconds(self):
        """mpqc once more, after calibration: reading, planning, machine code, linking."""
        profile = self.at("profile")
        self.compile_mpqc(self.at("timed.so"), "-dump-profile=" + profile)
        begin = time.monotonic()
        self.compile_mpqc(self.at("timed.so"), "-load-profile=" + profile)
        return time.monotonic() - begin
