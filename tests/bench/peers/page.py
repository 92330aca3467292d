# SPDX-License-Identifier: GPL-3.0-or-later
"""results.tsv, the table on the terminal, and the page of Markdown, all from the same rows."""
import csv
import os
import platform
import subprocess
from importlib.metadata import version

COLUMNS = ["network", "threads", "engine", "median_ms", "min_ms", "runs", "cosine", "sqnr_db",
           "note", "date", "cpu", "features", "cores", "system", "versions", "how", "samples",
           "key", "goal", "about"]
CALL = "call"  # the network of one Relu
GARBAGE = 5.0  # dB: whoever stays below computes something else, and is no peer
PEERS = ["onnxruntime", "openvino", "litert"]
SHOWN = [("onnxruntime float", "ORT f32"), ("onnxruntime", "ORT"), ("openvino", "OpenVINO"),
         ("litert", "LiteRT"), ("mpqc", "mpqc")]
# What decides the speed of integer kernels, as /proc/cpuinfo calls it.
FEATURES = ["avx2", "avx_vnni", "avx512bw", "avx512_vnni", "avx512vbmi", "amx_int8", "asimddp",
            "i8mm"]


def machine():
    text = open("/proc/cpuinfo").read() if os.path.exists("/proc/cpuinfo") else ""
    fields = dict(reversed([[p.strip() for p in line.split(":", 1)]
                            for line in text.splitlines() if ":" in line]))
    cpu = fields.get("model name", platform.processor() or platform.machine())
    if "cpu family" in fields:
        cpu += f" (family {fields['cpu family']}, model {fields['model']})"
    has = fields.get("flags", fields.get("Features", "")).split()
    names = {}
    if os.path.exists("/etc/os-release"):
        names = dict(line.rstrip().split("=", 1) for line in open("/etc/os-release")
                     if "=" in line)
    return {"cpu": cpu, "features": " ".join(f for f in FEATURES if f in has),
            "cores": str(len(os.sched_getaffinity(0))),
            "system": names.get("PRETTY_NAME", platform.system()).strip('"'),
            "versions": versions()}


def versions():
    here = os.path.dirname(os.path.abspath(__file__))
    source = [f":/{folder}" for folder in "codegen driver frontend ir passes runtime".split()]
    commit = subprocess.run(["git", "-C", here, "log", "-1", "--format=%h", "--", *source],
                            capture_output=True, text=True).stdout.strip()
    return ", ".join([f"ONNX Runtime {version('onnxruntime')}", f"OpenVINO {version('openvino')}",
                      f"NNCF {version('nncf')}", f"LiteRT {version('ai-edge-litert')}",
                      "mpqc " + (commit or "without git")])


def read(path):
    if not os.path.exists(path):
        return []
    with open(path, newline="") as f:
        return list(csv.DictReader(f, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\"))


def write(path, rows):
    with open(path + ".part", "w", newline="") as f:
        out = csv.DictWriter(f, COLUMNS, restval="", delimiter="\t", lineterminator="\n",
                             quoting=csv.QUOTE_NONE, escapechar="\\")
        out.writeheader()
        out.writerows(rows)
    os.replace(path + ".part", path)


def number(text):
    """Three digits that count."""
    x = float(text)
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else \
        f"{x:.2f}" if x >= 1 else f"{x:.3f}" if x >= 0.1 else f"{x:.4f}"


def of(rows, network, threads):
    return {r["engine"]: r for r in rows
            if r["network"] == network and int(r["threads"]) == threads}


def garbage(row):
    """LiteRT's file was not made here of this ONNX file: it may be another training."""
    return row["engine"] != "litert" and bool(row["sqnr_db"]) and float(row["sqnr_db"]) < GARBAGE


def ratio(engines, column="median_ms"):
    """Time of the best peer / ours, and the name of that peer."""
    peers = [(float(engines[e][column]), e) for e in PEERS
             if e in engines and not garbage(engines[e])]
    if not peers or "mpqc" not in engines or engines["mpqc"]["network"] == CALL:
        return None, ""
    best, name = min(peers)
    return best / float(engines["mpqc"][column]), dict(SHOWN)[name]


def cell(engines, engine):
    if engine not in engines:
        return "-"
    row = engines[engine]
    return f"{number(row['median_ms'])} ({number(row['min_ms'])})" + " !" * garbage(row)


def cells(rows, network, threads):
    engines = of(rows, network, threads)
    r, least = ratio(engines)[0], ratio(engines, "min_ms")[0]
    return [network] + [cell(engines, e) for e, _ in SHOWN] + [
        f"{r:.2f} ({least:.2f})" if r else "-"]


def line(rows, network, threads):
    r, peer = ratio(of(rows, network, threads))
    shown = [f"{name} {text}" for (_, name), text in
             zip(SHOWN, cells(rows, network, threads)[1:]) if text != "-"]
    return f"{network}, {threads} thread{'s' * (threads > 1)}: {', '.join(shown)}" + (
        f"; {peer} / mpqc = {r:.2f}" if r else "")


def names(rows, threads=None):
    return list(dict.fromkeys(r["network"] for r in rows
                              if threads is None or int(r["threads"]) == threads))


def counts(rows):
    return sorted({int(r["threads"]) for r in rows} - {0})


LIKENESS = ["network", "samples"] + [name for _, name in SHOWN[1:]]
HEAD = ["network"] + [name for _, name in SHOWN] + ["best peer / mpqc"]


def aligned(body):
    widths = [max(len(c) for c in column) for column in zip(*body)]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip() for r in body]


def terminal(rows):
    text = []
    for threads in counts(rows):
        text.append(f"\n{threads} thread{'s' * (threads > 1)}: median (minimum) in ms")
        text += aligned([HEAD] + [cells(rows, n, threads) for n in names(rows, threads)])
    compared = [n for n in names(rows, min(counts(rows), default=0)) if n != CALL]
    if compared and counts(rows):
        text.append("\nagainst ORT f32 on these samples: signal to noise, smallest cosine")
        text += aligned([LIKENESS] + [likeness(rows, n) for n in compared])
    return "\n".join(text)


def table(head, body):
    out = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return out + ["| " + " | ".join(r) + " |" for r in body]


def likeness(rows, network):
    engines = of(rows, network, min(counts(rows)))
    out = [network, next(iter(engines.values()))["samples"]]
    for engine, _ in SHOWN[1:]:
        r = engines.get(engine, {})
        out.append(f"{r['sqnr_db']} dB, {r['cosine']}" if r.get("sqnr_db") else "-")
    return out


def scaling(rows, network, threads):
    one, many = of(rows, network, 1), of(rows, network, threads)
    both = [e for e, _ in SHOWN if e in one and e in many]
    faster = {e: float(one[e]["median_ms"]) / float(many[e]["median_ms"]) for e in both}
    return [network] + [f"{faster[e]:.2f}" if e in faster else "-" for e, _ in SHOWN]


INTRO = """\
# mpqc beside its peers

Latency of one inference, batch 1, of the same networks in 8 bits. This page is written by
`tests/bench/peers` (see there for how it is measured); nothing in it is typed by hand.

    sh tests/bench/peers/run.sh -models=DIR -compile-time -page={page} \\
        tests/bench/peers/bundled.tsv tests/bench/peers/public.tsv

- **Machine**: {cpu}, {cores} cores, {features}; {system}; {date}.
- **Versions**: {versions}.
- **Recipes**: each engine's own. ONNX Runtime: `quant_pre_process`, then `quantize_static`
  with QDQ, u8 activations, s8 weights by channel. OpenVINO: `nncf.quantize` with its
  defaults. LiteRT: the int8 file that MLPerf Tiny publishes. mpqc: its defaults, with
  `-target=native -allow-float`. All but LiteRT saw the same calibration samples.
- **What is timed**: the call that turns inputs in memory into outputs in memory, float in
  and float out; LiteRT: int8 in and out, conversion not counted. All engines are called
  from Python by their cheapest call; the row `{call}` (one Relu over 64 numbers) says
  what such a call costs, so it says what share of the smallest networks' time is not theirs.
- **How**: every engine in a process of its own, pinned to the same cores; {how}, all
  engines in each round in turn, the order rotating. Times are medians over all runs,
  minimum in brackets, in ms.
- **best peer / mpqc**: median of the fastest int8 peer by median of mpqc, in brackets minimum
  by minimum. Above 1: mpqc is faster; "goal" is what the project wants with one thread.
  Who quantises to less than {garbage:g} dB (see below) is marked with ! and not counted.
- The machine of these figures is virtual, and drifts by some percent from minute to minute;
  the figures of one row were measured together. In the middle of all rows the int8 peers'
  medians lie {peers_busy} above their minima, those of mpqc {mpqc_busy}. The larger these are,
  the busier the machine was with something else, which slows those down most who need the
  most cache: then the ratio of the minima is the one to trust.
"""


def settings(rows, key):
    return ", ".join(dict.fromkeys(r[key] for r in rows if r[key]))


def busy(rows, engines):
    """How far medians lie above minima, in per cent, as a median over the rows."""
    excess = sorted(float(r["median_ms"]) / float(r["min_ms"]) - 1 for r in rows
                    if r["engine"] in engines and r["network"] != CALL)
    return f"{100 * excess[len(excess) // 2]:.0f} %" if excess else "-"


def in_project(path):
    root = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../.."))
    inside = os.path.relpath(os.path.realpath(path), root)
    return inside if not inside.startswith("..") else "FILE.md"


def markdown(path, rows):
    text = [INTRO.format(
        call=CALL, garbage=GARBAGE, page=in_project(path), peers_busy=busy(rows, PEERS), mpqc_busy=busy(rows, ["mpqc"]),
        **{k: settings(rows, k) for k in
           ("cpu", "cores", "features", "system", "date", "versions", "how")})]
    for threads in counts(rows):
        text += [f"## {threads} thread{'s' * (threads > 1)}", ""]
        text += measured(rows, threads) + [""]
    for threads in counts(rows)[1:]:
        text += [f"## How many times faster with {threads} threads than with 1", ""]
        text += table(HEAD[:-1], [scaling(rows, n, threads) for n in names(rows, threads)
                                  if n in names(rows, 1)]) + [""]
    text += whole_integer(rows) + sanity(rows) + compiling(rows) + list_of_networks(rows)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path + ".part", "w") as f:
        f.write("\n".join(text).rstrip() + "\n")
    os.replace(path + ".part", path)


def measured(rows, threads):
    if threads > 1:
        return table(HEAD, [cells(rows, n, threads) for n in names(rows, threads)])
    goals = {r["network"]: r["goal"] or "-" for r in rows}
    return table(HEAD + ["goal"], [cells(rows, n, threads) + [goals[n]]
                                   for n in names(rows, threads)])


def whole_integer(rows):
    body = []
    for threads in counts(rows):
        for n in names(rows, threads):
            e = of(rows, n, threads)
            if "mpqc -io=int" in e and "litert" in e:
                r = float(e["litert"]["median_ms"]) / float(e["mpqc -io=int"]["median_ms"])
                body.append([n, str(threads), cell(e, "litert"), cell(e, "mpqc"),
                             cell(e, "mpqc -io=int"), f"{r:.2f}"])
    if not body:
        return []
    return ["## Integers in, integers out", "",
            "LiteRT's files take and give int8. This is mpqc with `-io=int` beside them.", "",
            *table(["network", "threads", "LiteRT", "mpqc", "mpqc -io=int",
                    "LiteRT / mpqc -io=int"], body), ""]


def sanity(rows):
    shown = [n for n in names(rows) if n != CALL]
    return ["## Does everybody compute the same network?", "",
            "Against ONNX Runtime in f32, on the calibration samples: signal to quantisation noise",
            "over all samples, and the smallest cosine of a sample. Networks with random weights",
            "say little about accuracy; they are here for speed. LiteRT's file is not made from",
            "the ONNX file: where it is far off, it is another training of the same network.", "",
            *table(LIKENESS,
                   [likeness(rows, n) for n in shown if n in names(rows, min(counts(rows)))]), ""]


def compiling(rows):
    body = [[r["network"], f"{float(r['median_ms']) / 1000:.1f}"]
            for r in rows if r["engine"] == "compile" and r["network"] != CALL]
    if not body:
        return []
    return ["## Compiling", "", "Seconds of `mpqc -load-profile`, after calibration: reading the "
            "ONNX file,", "quantising, writing machine code, linking; with all cores.", "",
            *table(["network", "s"], body), ""]


def list_of_networks(rows):
    first = {}
    for r in rows:
        first.setdefault(r["network"], r)
    out = ["## The networks", "", "How to get the public ones: `tests/bench/peers/README.md`.", ""]
    out += [f"- **{n}**: {r['about']}." for n, r in first.items() if r["about"]]
    failed = [r for r in rows if r.get("note")]
    if failed:
        out += ["", "Not measured:", ""]
        out += [f"- {r['network']}, {r['engine']}: {r['note']}" for r in failed]
    return out
