#!/usr/bin/env python3
"""Measure the ways of doing the inner work of a stage that were tried, those that lost among them; prints microseconds.

    python3 benchmarks/leads.py [MODEL.onnx]

Each way runs in turns with the others, their results are compared, and the median of the turns is printed. With a model,
ONNX Runtime's options too. What is not installed (pandas) is left out and said to be.
"""
import io
import json
import os
import sys
import tempfile
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
TURNS, CALLS = 15, 20


def in_turns(title, calls=CALLS, **ways):
    """Print the median time of a call of each way."""
    times = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(calls):
                way()
            times[name].append(1e6 * (time.perf_counter() - start) / calls)
    print("\n%s (microseconds)" % title)
    for name, values in times.items():
        print("  %-28s %10.1f   (%.1f to %.1f)" % (name, sorted(values)[TURNS // 2], min(values), max(values)))


def text():
    """A row of 1000 %f values to numbers."""
    import imagenet_acc_eval
    scores = np.random.RandomState(0).standard_normal(1000) * 3
    data = ("%f " * 1000 % tuple(scores) + "\n").encode()
    expected = np.array([float(token) for token in data.split()])
    ways = {"split_np_float32": lambda: np.array([np.float32(token) for token in data.decode().strip().split(" ")]),
            "map_float": lambda: np.array(list(map(float, data.split()))),
            "np_array_of_split": lambda: np.array(data.split(), np.float64),
            "np_loadtxt": lambda: np.loadtxt(io.BytesIO(data)),
            "np_fromstring_float": lambda: np.fromstring(data, np.float64, sep=" "),
            "whole_millionths_kept": lambda: imagenet_acc_eval.as_floats(imagenet_acc_eval.parse_text(data))}
    try:
        import pandas
        ways["pandas_c_reader"] = lambda: pandas.read_csv(io.BytesIO(data), sep=" ", header=None).to_numpy()[0, :1000]
    except ImportError:
        print("pandas is not installed and left out")
    for name, way in ways.items():
        assert np.allclose(way(), expected, atol=1e-5), name
    in_turns("evaluation: a TXT row of 1000 values", **ways)


def binary():
    """A BIN file of 1000 float32 to numbers, and the rank of its label."""
    import imagenet_acc_eval
    scores = np.random.RandomState(0).standard_normal(1000).astype("<f4")
    buffer = np.empty(1000, "<f4")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a_0.bin")
        scores.tofile(path)

        def into_one_buffer():
            with open(path, "rb", buffering=0) as file:
                file.readinto(buffer)
            return buffer

        def frombuffer():
            with open(path, "rb", buffering=0) as file:
                return np.frombuffer(file.read(), "<f4")

        in_turns("evaluation: read a BIN result", fromfile=lambda: np.fromfile(path, "<f4"), frombuffer_of_read=frombuffer,
                 into_one_buffer=into_one_buffer, kept_with_its_checks=lambda: imagenet_acc_eval.read_scores(path))
    in_turns("evaluation: the rank of a label among 1000", argsort=lambda: int(np.argsort(-scores).tolist().index(7)),
             argpartition=lambda: np.argpartition(-scores, 5)[:5], counting_kept=lambda: imagenet_acc_eval.rank_of(7, scores))


def steps():
    """What one image costs imagenet_torch_preprocess.py in uint8, step by step, in one process, beside its bound's steps."""
    from PIL import Image, ImageFile

    import imagenet_torch_preprocess as preprocess
    from tools.make_tiny_imagenet import draw
    Image.preinit()
    ImageFile.MAXBLOCK = 1 << 19  # as start() has it
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        path = os.path.join(folder, "image.JPEG")
        Image.fromarray(draw(1, np.random.RandomState(1), (500, 375))).save(path, quality=90)
        data, ready = preprocess.read_file(path)[1], b"\1" * 150528
        opened = Image.open(path).convert("RGB")
        cut = preprocess.cut(data, 256, 224)
        temporary, entry = preprocess.new_temporary(folder), preprocess.Entry("image", path, 1, 1, 1, 1)
        manifest = os.open(os.path.join(folder, ".manifest"), os.O_WRONLY | os.O_CREAT)

        def write():
            with open(os.path.join(folder, "ready"), "wb") as file:
                file.write(ready)

        def cut_wide():
            return opened.resize((341, 256), Image.BILINEAR).crop((58, 16, 282, 240))

        def cut_between():
            wide = opened.resize((341, 375), Image.BILINEAR).crop((58, 0, 282, 375))
            return wide.resize((224, 256), Image.BILINEAR).crop((0, 16, 224, 240))

        assert cut_wide().tobytes() == cut_between().tobytes() == cut.tobytes()
        in_turns("preprocessing, uint8: the steps of one image, 500 x 375",
                 read_file=lambda: preprocess.read_file(path), decode=lambda: Image.open(io.BytesIO(data)).load(),
                 resize_and_crop_bound=cut_wide, resize_and_crop_kept=cut_between, tobytes=cut.tobytes,
                 write_bound=write, write_whole_kept=lambda: preprocess.write_whole(folder, "image.bin", ready, temporary),
                 manifest=lambda: os.write(manifest, (json.dumps(entry) + "\n").encode()))
        os.close(manifest)


def normalisation():
    """Pixels (224, 224, 3) of uint8 to normalised float32 planes."""
    from PIL import Image

    import imagenet_torch_preprocess as preprocess
    pixels = np.random.RandomState(0).randint(0, 256, (224, 224, 3)).astype(np.uint8)
    image, planes = Image.fromarray(pixels), np.empty((3, 224, 224), np.float32)
    mean, std = (np.array(preprocess.MODELS["resnet"][key], np.float32) for key in ("mean", "std"))
    column = mean.reshape(3, 1, 1), std.reshape(3, 1, 1)
    table = (np.arange(256, dtype=np.float32) / np.float32(255) - mean[:, None]) / std[:, None]

    def arithmetic():
        return (pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255) - column[0]) / column[1]

    def indexing():
        return np.stack([table[channel][pixels[:, :, channel]] for channel in range(3)])

    def take(mode, channels):
        for channel in range(3):
            np.take(table[channel], channels(channel), out=planes[channel], mode=mode)
        return planes

    def in_place():
        preprocess.normalise(image, mean, std, planes)
        return planes

    ways = {"three_passes_of_arithmetic": arithmetic, "indexing_the_table": indexing,
            "take_raise": lambda: take("raise", lambda channel: pixels[:, :, channel]),
            "take_clip": lambda: take("clip", lambda channel: pixels[:, :, channel]),
            "plane_by_plane_kept": in_place}
    for name, way in ways.items():
        assert np.array_equal(way(), arithmetic()), name
    in_turns("preprocessing: 224 x 224 pixels to normalised planes", **ways)


def sessions(model):
    """Session options of ONNX Runtime, at batch size 8."""
    import onnxruntime
    threads = len(os.sched_getaffinity(0))
    batch, ways = {"image": np.zeros((8, 3, 224, 224), np.float32)}, {}

    def session(name, change):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        change(options)
        made = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        ways[name] = lambda: made.run(None, batch)

    def entry(key, value):
        return lambda options: options.add_session_config_entry(key, value)

    session("as_it_is_kept", lambda options: None)
    session("no_spinning", entry("session.intra_op.allow_spinning", "0"))
    session("parallel_execution", lambda options: setattr(options, "execution_mode", onnxruntime.ExecutionMode.ORT_PARALLEL))
    session("no_memory_pattern", lambda options: setattr(options, "enable_mem_pattern", False))
    session("basic_graph_optimisation", lambda options: setattr(
        options, "graph_optimization_level", onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC))
    session("denormals_as_zero", entry("session.set_denormal_as_zero", "1"))
    in_turns("inference: ONNX Runtime's options, batch size 8", calls=1, **ways)


def main():
    text()
    binary()
    steps()
    normalisation()
    if len(sys.argv) > 1:
        sessions(sys.argv[1])


if __name__ == "__main__":
    main()
