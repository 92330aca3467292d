# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepares networks for every engine, measures the engines in turn, writes what it found.

run.sh calls it; README.md in this folder says what is measured and how.
"""
import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

import page
from prepare import HERE, NETWORKS, Network, Trouble, one_relu

# Engine of a table -> class of engines.py that runs it.
ENGINES = {"onnxruntime float": "onnxruntime", "onnxruntime": "onnxruntime",
           "openvino": "openvino", "litert": "litert", "mpqc": "mpqc", "mpqc -io=int": "mpqc"}


class Worker:
    """A process of engines.py with one engine, one network and a number of threads."""

    def __init__(self, network, engine, cpus, options):
        self.engine, self.times, self.answers = engine, [], None
        self.answer_file = network.at("answer.npy")
        job = {"engine": ENGINES[engine], "file": network.files[engine], "threads": len(cpus),
               "cpus": cpus, "inputs": network.arrays, "runtime": options.runtime}
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as f:
            json.dump(job, f)
        self.errors = open(network.at("worker.log"), "w+")
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "engines.py"), f.name], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)
        try:
            self.expect()
        finally:
            os.unlink(f.name)

    def expect(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines()
            raise Trouble(said[-1] if said else f"ended with {self.process.returncode}")
        return line

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.expect()

    def sanity(self):
        self.ask("sanity " + self.answer_file)
        self.answers = np.load(self.answer_file).astype(np.float64)

    def burst(self, seconds):
        self.times += json.loads(self.ask(f"burst {seconds}"))

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def likeness(worker, reference):
    """Smallest cosine over the samples, and SQNR in dB over all, against float."""
    a, b = worker.answers, reference.answers
    if a.shape != b.shape:
        return "", ""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.where(norms > 0, (a * b).sum(1) / np.where(norms > 0, norms, 1), 1).min()
    noise = ((a - b) ** 2).sum()
    sqnr = 10 * np.log10((b ** 2).sum() / noise) if noise > 0 else 999
    return f"{cosine:.4f}", f"{sqnr:.1f}"


def start(network, cpus, options):
    """A worker for every engine that has a file and starts; the others get a note."""
    for engine in ENGINES:
        if engine in network.files:
            try:
                worker = Worker(network, engine, cpus, options)
                worker.sanity()
                yield worker
            except Trouble as e:
                network.notes[engine] = str(e)
                print(f"peers: {network.name}: {engine} does not run: {e}")


def measure(network, cpus, options):
    """Rounds; in a round every engine has one burst; the order rotates from round to round."""
    workers = []
    try:
        for worker in start(network, cpus, options):
            workers.append(worker)
        for k in range(options.rounds):
            for i in range(len(workers)):
                time.sleep(0.02)  # pools spin for a while after their last task
                workers[(i + k) % len(workers)].burst(options.burst)
    except Trouble as e:
        raise Trouble(f"{network.name}: an engine ended while it was measured: {e}") from e
    finally:
        for w in workers:
            w.end()
    reference = next((w for w in workers if w.engine == "onnxruntime float"), None)
    for w in workers:
        cosine, sqnr = likeness(w, reference) if reference else ("", "")
        ms = np.array(w.times) / 1e6
        yield {"engine": w.engine, "median_ms": f"{np.median(ms):.5f}",
               "min_ms": f"{ms.min():.5f}", "runs": len(ms), "cosine": cosine, "sqnr_db": sqnr}


def cores():
    """One CPU of every core that this process may use."""
    seen, chosen = set(), []
    for cpu in sorted(os.sched_getaffinity(0)):
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as f:
                core = f.read().strip()
        except OSError:
            core = str(cpu)
        if core not in seen:
            seen.add(core)
            chosen.append(cpu)
    return chosen


def read_list(path, options):
    """name, file, goal, about by line; files are looked for beside the list, then in -models."""
    folders = [os.path.dirname(os.path.abspath(path)), options.models or "."]
    with open(path) as f:
        for line in f:
            if not line.strip() or line.startswith("#"):
                continue
            parts = line.rstrip("\n").split("\t")
            if len(parts) != 4:
                raise Trouble(f"{path}: a line has {len(parts)} columns, not 4: {line.strip()}")
            name, file, goal, about = parts
            there = [p for p in (os.path.join(f, file) for f in folders) if os.path.exists(p)]
            if there:
                yield name, os.path.normpath(there[0]), goal, about
            else:
                print(f"peers: {name} is left out, no {file} beside the list or in -models")


def networks(options):
    call = os.path.join(options.work, "one_relu.onnx")
    one_relu(call)
    wanted = [(page.CALL, call, "", "one Relu over 64 numbers: the price of a call")]
    for path in options.networks or [os.path.join(HERE, "bundled.tsv")]:
        if not os.path.exists(path):
            raise Trouble(f"{path} is missing")
        if path.endswith(".tsv"):
            wanted += read_list(path, options)
        elif path.endswith(".onnx"):
            wanted.append((os.path.basename(path)[:-5], path, "", ""))
        else:
            raise Trouble(f"{path} is neither a network (.onnx) nor a list of them (.tsv)")
    options.order = {w[0]: i for i, w in enumerate(wanted)}
    for name in options.only:
        if name not in options.order:
            raise Trouble(f"-only={name}: there are {', '.join(options.order)}")
    for name, path, goal, about in wanted:
        if not options.only or name in options.only:
            own = argparse.Namespace(**vars(options))
            if name == page.CALL:  # the flags of the user's networks are not for it
                own.calib, own.shapes, own.range = None, {}, None
            yield Network(name, path, own), {"goal": goal.strip("-"), "about": about}


def shape(text):
    name, _, dims = text.rpartition(":")
    if not name:
        raise ValueError(text)
    return name, [int(d) for d in dims.split("x")]


def span(text):
    low, high = (float(v) for v in text.split(","))
    return low, high


def parsed(flag, text, function, example):
    try:
        return function(text)
    except ValueError:
        raise Trouble(f"-{flag} wants something like {example}, not '{text}'") from None


def arguments():
    p = argparse.ArgumentParser(prog="run.sh", allow_abbrev=False, add_help=False,
                                description="Measures mpqc beside ONNX Runtime, OpenVINO, LiteRT.")
    p.add_argument("-help", action="help", help="print this and end")
    p.add_argument("networks", nargs="*", help=".onnx files, or .tsv lists of them")
    p.add_argument("-threads", default="", help="e.g. 1,4; default: 1 and all cores")
    p.add_argument("-calib", help="samples, .npy, first axis = samples, as the network's input;"
                   " default: NETWORK.npy beside NETWORK.onnx, else random")
    p.add_argument("-count", type=int, default=64, help="use the first COUNT samples (64)")
    p.add_argument("-range", help="low,high of random samples; default: normal(0, 1)")
    p.add_argument("-shape", action="append", default=[], help="input:1x3x224x224, as of mpqc")
    p.add_argument("-models", help="folder of the files that lists name")
    p.add_argument("-only", help="names of networks, with commas: leave the others out")
    p.add_argument("-rounds", type=int, default=21, help="rounds of bursts (21); 0: no latencies")
    p.add_argument("-burst", type=float, default=0.1, help="seconds of a burst (0.1)")
    p.add_argument("-mpqc", action="append", default=[], dest="mpqc_flags", metavar="FLAG",
                   help="flag for mpqc; may be repeated")
    p.add_argument("-prepare", action="store_true", help="quantise and compile, measure nothing")
    p.add_argument("-compile-time", action="store_true", help="time mpqc after calibration, too")
    p.add_argument("-add", action="store_true", help="keep what results.tsv says of others")
    p.add_argument("-page", help="write a page of Markdown")
    p.add_argument("-work", help=argparse.SUPPRESS)
    p.add_argument("-build", help=argparse.SUPPRESS)
    o = p.parse_args()
    o.shapes = dict(parsed("shape", s, shape, "input:1x3x224x224") for s in o.shape)
    o.range = parsed("range", o.range, span, "0,255") if o.range else None
    o.only = o.only.split(",") if o.only else []
    o.mpqc = os.path.join(o.build, "bin", "mpqc")
    o.runtime = os.path.join(o.build, "runtime", "libmpqc_runtime.so")
    o.results = os.path.join(o.work, "results.tsv")
    o.cores = cores()
    o.threads = parsed("threads", o.threads, lambda t: [int(n) for n in t.split(",")], "1,4") \
        if o.threads else sorted({1, len(o.cores)})
    if o.count < 1 or o.rounds < 0 or o.burst <= 0:
        raise Trouble("-count wants at least 1, -rounds at least 0, -burst more than 0")
    if not o.rounds:
        o.threads = []
    if not all(1 <= t <= len(o.cores) for t in o.threads):
        raise Trouble(f"-threads wants numbers from 1 to {len(o.cores)}, the cores that this "
                      "process may use")
    return o


def run(o):
    rows = page.read(o.results) if o.add else []
    for network, listed in list(networks(o)):  # all are read before any is measured
        network.prepare()
        if o.prepare:
            continue
        about = {"network": network.name, "key": network.key, "samples": network.source,
                 "how": f"{o.rounds} rounds of bursts of {o.burst:g} s" if o.rounds else "",
                 "date": str(datetime.date.today()), **listed, **page.machine()}
        rows = [r for r in rows if r["network"] != network.name or
                int(r["threads"]) not in o.threads + [0]]
        for threads in o.threads:
            for row in measure(network, o.cores[:threads], o):
                rows.append({**about, "threads": threads, **row})
            page.write(o.results, rows)
            print(page.line(rows, network.name, threads), flush=True)
        for engine, reason in network.notes.items():
            rows.append({**about, "threads": 0, "engine": engine, "note": reason})
        if o.compile_time and "mpqc" in network.files:
            rows.append({**about, "threads": 0, "engine": "compile",
                         "median_ms": f"{1000 * network.compile_seconds():.0f}"})
        rows.sort(key=lambda r: o.order.get(r["network"], len(o.order)))
        page.write(o.results, rows)
    if not o.prepare:
        print(page.terminal(rows) + f"\npeers: all figures are in {o.results}")
    if o.page:
        page.markdown(o.page, rows)


if __name__ == "__main__":
    try:
        run(arguments())
    except Trouble as e:
        sys.exit(f"peers: {e}")
    except KeyboardInterrupt:
        sys.exit("peers: interrupted")
