# SPDX-License-Identifier: GPL-3.0-or-later
"""One engine in one process: `engines.py JOB.json`, told by lines on stdin what to do.

    sanity FILE.npy      run the samples, save the first output of each in FILE.npy
    burst SECONDS        run the first sample again and again; answer: times in ns, as JSON
    (end of input)       end

Everything before a run (reading, compiling, copying the input to where the engine wants it)
happens before the clock starts.  What is timed is the call that computes the outputs from
the inputs, made through the cheapest call that each engine offers to Python.
"""
import ctypes
import json
import os
import sys
import time

import numpy as np


class OnnxRuntime:
    """Inputs and outputs are bound once, so a run copies and allocates nothing in Python."""

    def __init__(self, job, inputs):
        import onnxruntime as ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = job["threads"]
        options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(job["file"], options,
                                            providers=["CPUExecutionProvider"])
        self.binding, self.inputs = self.session.io_binding(), inputs
        self.load()
        out = self.session.get_outputs()
        self.result = ort.OrtValue.ortvalue_from_shape_and_type(
            out[0].shape, np.float32, "cpu")
        self.binding.bind_ortvalue_output(out[0].name, self.result)
        for extra in out[1:]:
            self.binding.bind_output(extra.name)
        run, bound = self.session._sess.run_with_iobinding, self.binding._iobinding
        self.call = lambda: run(bound, None)

    def load(self):
        for entry, x in zip(self.session.get_inputs(), self.inputs):
            self.binding.bind_cpu_input(entry.name, x)  # keeps a copy

    def output(self):
        return self.result.numpy().copy()


class OpenVino:
    def __init__(self, job, inputs):
        import openvino
        model = openvino.Core().compile_model(job["file"], "CPU", {
            "INFERENCE_NUM_THREADS": job["threads"], "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY"})
        self.request = model.create_infer_request()
        self.tensors = [openvino.Tensor(x, shared_memory=True) for x in inputs]
        for i, tensor in enumerate(self.tensors):
            self.request.set_input_tensor(i, tensor)
        infer = self.request.infer
        self.call = lambda: infer(share_outputs=True)

    def output(self):
        return self.request.get_output_tensor(0).data.copy()


class LiteRt:
    """The .tflite beside the network: its integers in, its integers out, nothing converted
    while the clock runs."""

    def __init__(self, job, inputs):
        from ai_edge_litert.interpreter import Interpreter
        self.net = Interpreter(model_path=job["file"], num_threads=job["threads"])
        self.net.allocate_tensors()
        self.entry, self.exit = self.net.get_input_details()[0], self.net.get_output_details()[0]
        self.buffer, self.shape = inputs[0], inputs[0].shape
        self.load()
        self.call = self.net.invoke

    def load(self):
        x = self.buffer
        if x.ndim == 4:
            x = x.transpose(0, 2, 3, 1)
        x = x.reshape(self.entry["shape"])
        scale, zero = self.entry["quantization"]
        if scale:
            limits = np.iinfo(self.entry["dtype"])
            x = np.clip(np.rint(x / scale) + zero, limits.min, limits.max)
        self.net.set_tensor(self.entry["index"], x.astype(self.entry["dtype"]))

    def output(self):
        y = self.net.get_tensor(self.exit["index"])
        scale, zero = self.exit["quantization"]
        y = (y.astype(np.float32) - zero) * scale if scale else y.copy()
        return y.transpose(0, 3, 1, 2) if y.ndim == 4 else y


class Io(ctypes.Structure):  # struct mpqc_io of mpqc_model.h
    _fields_ = [("name", ctypes.c_char_p), ("element", ctypes.c_uint32),
                ("rank", ctypes.c_uint32), ("dims", ctypes.c_int64 * 8),
                ("bytes", ctypes.c_uint64), ("scale", ctypes.c_float),
                ("zero_point", ctypes.c_int32), ("preprocess", ctypes.c_void_p)]


RUN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
                       ctypes.c_void_p)


class Model(ctypes.Structure):  # struct mpqc_model of mpqc_model.h
    _fields_ = [("abi_version", ctypes.c_uint32), ("struct_size", ctypes.c_uint32),
                ("name", ctypes.c_char_p), ("target", ctypes.c_char_p),
                ("compiler", ctypes.c_char_p), ("n_inputs", ctypes.c_uint32),
                ("n_outputs", ctypes.c_uint32), ("inputs", ctypes.POINTER(Io)),
                ("outputs", ctypes.POINTER(Io)), ("workspace_size", ctypes.c_uint64),
                ("workspace_align", ctypes.c_uint64), ("n_layers", ctypes.c_uint32),
                ("reserved", ctypes.c_uint32), ("layers", ctypes.c_void_p),
                ("supported", ctypes.CFUNCTYPE(ctypes.c_int)), ("run", RUN)]


class Exec(ctypes.Structure):  # struct mpqc_exec of mpqc_model.h
    _fields_ = [("struct_size", ctypes.c_uint32), ("threads", ctypes.c_uint32),
                ("parallel_for", ctypes.c_void_p), ("pool", ctypes.c_void_p),
                ("layer_begin", ctypes.c_void_p), ("layer_end", ctypes.c_void_p),
                ("profile", ctypes.c_void_p)]


ELEMENTS = {1: np.float32, 2: np.uint8, 3: np.int8, 4: np.int16, 5: np.int32, 6: np.int64}


class Mpqc:
    """The C interface that applications use, by ctypes; threads come from mpqc's own pool."""

    def __init__(self, job, inputs):
        self.library = ctypes.CDLL(job["file"])
        self.model = m = Model.in_dll(self.library, "mpqc_model")
        if m.abi_version != 1 or not m.supported():
            sys.exit("this CPU cannot run " + job["file"])
        self.floats = inputs
        self.inputs = [np.empty(x.shape, ELEMENTS[m.inputs[i].element])
                       for i, x in enumerate(inputs)]
        self.outputs = []
        for i in range(m.n_outputs):
            out = m.outputs[i]
            self.outputs.append(np.empty(out.dims[:out.rank], ELEMENTS[out.element]))
        self.load()
        align = m.workspace_align
        self.space = np.empty(m.workspace_size + align, np.uint8)
        base = ctypes.c_void_p((self.space.ctypes.data + align - 1) // align * align)
        self.ins = (ctypes.c_void_p * len(inputs))(*[x.ctypes.data for x in self.inputs])
        self.outs = (ctypes.c_void_p * len(self.outputs))(*[y.ctypes.data for y in self.outputs])
        ins, outs = (ctypes.cast(p, ctypes.c_void_p) for p in (self.ins, self.outs))
        ex, run = self.threads(job), m.run
        self.call = lambda: run(ins, outs, base, ex)
        if self.call() != 0:
            sys.exit("run() failed in " + job["file"])

    def threads(self, job):
        if job["threads"] == 1:
            return None
        runtime = ctypes.CDLL(job["runtime"])
        runtime.mpqc_pool_create.restype = ctypes.c_void_p
        runtime.mpqc_pool_exec.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        pool = runtime.mpqc_pool_create(job["threads"])
        if not pool:
            sys.exit("the pool could not be made")
        self.exec = Exec()
        runtime.mpqc_pool_exec(pool, ctypes.addressof(self.exec))
        return ctypes.c_void_p(ctypes.addressof(self.exec))

    def load(self):
        for i, (x, q) in enumerate(zip(self.floats, self.inputs)):
            if q.dtype == np.float32:
                q[...] = x
            else:
                entry, limits = self.model.inputs[i], np.iinfo(q.dtype)
                q[...] = np.clip(np.rint(x / entry.scale) + entry.zero_point,
                                 limits.min, limits.max)

    def output(self):
        y, entry = self.outputs[0], self.model.outputs[0]
        if y.dtype == np.float32:
            return y.copy()
        return (y.astype(np.float32) - entry.zero_point) * entry.scale


ENGINES = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "litert": LiteRt, "mpqc": Mpqc}


def burst(call, seconds):
    """A fifth of the time warms the caches up; at least three runs are counted."""
    clock = time.perf_counter_ns
    begin = clock()
    while clock() - begin < seconds * 0.2e9:
        call()
    times, begin = [], clock()
    while len(times) < 3 or clock() - begin < seconds * 1e9:
        t = clock()
        call()
        times.append(clock() - t)
    return times


def main():
    with open(sys.argv[1]) as f:
        job = json.load(f)
    os.sched_setaffinity(0, job["cpus"])  # before the engine looks how many there are
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)  # whatever an engine prints is no answer
    samples = [np.load(path) for path in job["inputs"]]
    inputs = [x[:1].copy() for x in samples]
    engine = ENGINES[job["engine"]](job, inputs)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        word, what = line.split(None, 1)
        if word == "burst":
            print(json.dumps(burst(engine.call, float(what))), file=answers, flush=True)
            continue
        results = []
        for k in list(range(1, min(len(x) for x in samples))) + [0]:
            for x, s in zip(inputs, samples):
                x[...] = s[k:k + 1]
            if hasattr(engine, "load"):
                engine.load()
            engine.call()
            results.append(engine.output().reshape(-1))
        np.save(what.strip(), np.stack(results[-1:] + results[:-1]))
        print("saved", file=answers, flush=True)


main()
