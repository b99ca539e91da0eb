"""Folders of results with their summaries, as an inference leaves them, made by hand for the tests of what reads them."""
import json

import numpy as np

from common import files, results


def write_result(folder, name, scores, outfmt="txt"):
    """An image's scores as NAME_0.OUTFMT; returns the path."""
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / ("%s_0.%s" % (name, outfmt))
    if outfmt == "txt":
        path.write_text("".join("%f " % score for score in scores) + "\n")
    elif outfmt == "npy":
        np.save(str(path), scores.reshape(1, -1))
    else:
        path.write_bytes(scores.tobytes())
    return path


def summary_of(folder, **changes):
    """A summary as onnx_infer.py writes it, of what lies in a folder. images: {name: hash of its picture}; classes: how many."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix in (".txt", ".bin", ".npy"))
    images, classes = changes.pop("images", {}), changes.pop("classes", 20)
    files_info = {}
    for number, name in enumerate(each for each in names if "_0." in each):
        path, image = folder / name, name.rpartition("_")[0]
        state = [files.xxh(path.read_bytes()), files.stat_of(path.stat())] if path.is_file() else ["", []]
        files_info[str(number)] = {"infiles": ["prep_dataset/%s.bin" % image], "outfiles": [str(path)],
                                   "image": images.get(image, "source of " + image), "hashes": [state]}
    summary = {"schema": results.SCHEMA, "filesinfo": files_info, "engine": "onnxruntime 1.0 CPUExecutionProvider",
               "device": "a CPU, 2 threads", "precision": "fp32", "batch_size": 8,
               "model": {"sha256": "ab", "weights_sha256": None, "calibration": None, "recipe": None,
                         "input": {"dtype": "float32", "shape": [3, 224, 224]}},
               "input": {"path": "prep_dataset", "images": len(names), "recipe": None, "source": None, "set_hash": None,
                         "shard": None},
               "outputs": [{"name": "class", "dtype": "float32", "shape": [classes]}], "probabilities": False,
               "packages": {"numpy": "1.0"}, "made_from": {}, "performance": None}
    for key, value in changes.items():
        summary[key] = dict(summary[key], **value) if key in ("model", "input") and value and "sha256" not in value else value
    return summary


def record(folder, **changes):
    """Writes the summary beside a folder, as a finished inference does; returns its path."""
    path = folder.parent / (folder.name + "_summary.json")
    path.write_text(json.dumps(summary_of(folder, **changes)))
    return path


def in_shards(folder, total, **changes):
    """Moves a folder's results into shard folders with summaries."""
    paths = sorted(folder.glob("*.*"))
    for number in range(1, total + 1):
        shard = folder / ("shard%d_of_%d" % (number, total))
        shard.mkdir()
        for path in paths[(number - 1) * len(paths) // total:number * len(paths) // total]:
            path.rename(shard / path.name)
        record(shard, **dict({"input": {"path": "prep/" + shard.name, "shard": [number, total]}}, **changes))
