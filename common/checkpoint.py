"""A checkpoint: what people call one, read without running anything of it, and the ResNet34 in it.

torch never sees the file. Its pickle is read with one class for tensors and one for whatever else is no plain value; neither does
anything. A tensor's numbers are looked up in the file's bytes when they are wanted, so that what a file claims allocates nothing.
"""
import functools
import io
import pickle
import re
import struct
import zipfile

from common import files
from common.command import fail

WEIGHTS_URL = "https://download.pytorch.org/models/resnet34-b627a593.pth"  # torchvision's, as the guide downloads them
LARGEST = 1 << 30  # bytes: ResNet34 is 87 MB in float32, in float64 with Adam's two moments 0.5 GB
MOST_CLASSES = 100000  # ImageNet-21k has 21 841; a head of so many is 205 MB
DEEPEST = 8  # dictionaries in dictionaries
ADVICE = "save only the weights: torch.save(model.state_dict(), ...)"
# A storage's type, and numpy's for its bytes.
FLOATS = {"Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": "<u2"}
OTHERS = {"Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?1", "Untyped": "u1", "QInt8": "i1",
          "QUInt8": "u1", "QInt32": "<i4", "ComplexFloat": "<c8"}
SAFETENSORS = {"F32": "Float", "F64": "Double", "F16": "Half", "BF16": "BFloat16"}

TRUNK, HEAD = "layer1.0.conv1.weight", "fc.weight"  # every ResNet has them
WIDTHS, BLOCKS = (64, 128, 256, 512), (3, 4, 6, 3)  # of ResNet34's stages
DEPTHS = {(False, (2, 2, 2, 2)): 18, (False, BLOCKS): 34,  # has it bottlenecks, blocks a stage
          (True, BLOCKS): 50, (True, (3, 4, 23, 3)): 101, (True, (3, 8, 36, 3)): 152}
RELATIVES = {"layer1.0.se.fc1.weight": "SE-ResNet34", "conv1.0.weight": "ResNet34-D"}  # by a key that only they have


# ---- what a pickle is made of ----

class Tensor:
    """What torch's classes and functions that make tensors are here: they note their arguments."""
    storage, offset, shape, strides = None, 0, (), ()

    def __init__(self, *arguments):
        self.__setstate__(arguments)

    def __setstate__(self, state):
        if not isinstance(state, tuple) or not state:
            return
        if state[0] is Tensor and len(state) > 2:  # _rebuild_from_type_v2(function, type, its arguments, ...)
            self.__setstate__(state[2])
        elif isinstance(state[0], Tensor):  # a Parameter is what it is made of
            self.__dict__ = state[0].__dict__
        elif isinstance(state[0], Storage) and len(state) > 3:
            numbers = state[1:2] + tuple(state[2]) + tuple(state[3])
            if len(state[2]) != len(state[3]) or not all(type(number) is int and number >= 0 for number in numbers):
                raise pickle.UnpicklingError("a tensor has no such shape")
            self.storage, self.offset, self.shape, self.strides = state[0], state[1], tuple(state[2]), tuple(state[3])

    @property
    def dtype(self):
        return self.storage.dtype if self.storage else "no plain"

    def numbers(self):
        """A float32 array of its own."""
        import numpy as np
        flat = np.frombuffer(self.storage.read(), FLOATS[self.dtype])[self.offset:]
        if sum((side - 1) * step for side, step in zip(self.shape, self.strides)) >= len(flat):
            raise ValueError("a tensor has fewer numbers than its shape says")
        flat = np.lib.stride_tricks.as_strided(flat, self.shape, [step * flat.itemsize for step in self.strides])
        if self.dtype == "BFloat16":  # the upper half of a float32
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore"):
            return np.array(flat, np.float32)


class Storage:
    """The numbers that tensors are cut from. read: a function that gives their bytes."""

    def __init__(self, dtype, read=None):
        self.dtype, self.read = dtype, read


class Thing(dict):
    """What everything else is here: it may be called, made, filled and given a state, and keeps only items."""
    is_model = False

    def __init__(self, *arguments):
        super().__init__()
        if type(self).__name__ == "OrderedDict":  # Python 2 pickled an OrderedDict as a call with its pairs
            self.update(*[pairs for pairs in arguments if isinstance(pairs, (list, dict))])
        self.__setstate__(arguments)

    def __setstate__(self, state):
        for part in state if isinstance(state, tuple) else (state,):
            self.is_model = self.is_model or (isinstance(part, dict) and "_modules" in part)

    def append(self, *items):
        pass

    add = extend = append
    __hash__, __eq__ = object.__hash__, object.__eq__


class Unpickler(pickle.Unpickler):
    """Imports nothing: every name becomes one of the classes above, or tuple."""

    def __init__(self, file):
        super().__init__(file, encoding="latin1")  # Python 2's strings
        self.storages = {}

    def find_class(self, module, name):
        if module.split(".")[0] == "torch" and re.match(r"_rebuild|[A-Za-z]*Tensor\Z|Parameter\Z", name):
            return Tensor
        return tuple if (module, name) == ("torch", "Size") else type(name, (Thing,), {"__module__": module})

    def persistent_load(self, saved):
        if saved[0] == "module":  # a class with its source, in the format before torch 1.6
            return saved[1]
        if saved[0] != "storage" or saved[5:] not in ((), (None,)):
            raise pickle.UnpicklingError("a storage of a kind that torch no longer writes")
        return self.storages.setdefault(saved[2], Storage(saved[1].__name__.replace("Storage", "")))


# ---- the three formats ----

def read(path):
    """(bytes, SHA-256) of a checkpoint; exits where the file's name (torch.hub's NAME-HEX.pth) has another hash."""
    try:
        data = files.read(path, LARGEST)
    except FileNotFoundError:
        fail("%s: no such weight file; get it with: wget %s" % (path, WEIGHTS_URL))
    digest = files.sha256(data)
    named = re.search(r"-([0-9a-f]{8})\.[^./]+$", path)  # as torch.hub writes it
    if named and not digest.startswith(named.group(1)) and not re.match(r"(19|20)\d{6}", named.group(1)):  # a date
        fail("%s: its SHA-256 starts with %s, its name says %s: the file is damaged or another one; download it again "
             "(or rename it, if that part of the name is no hash)" % (path, digest[:8], named.group(1)))
    return data, digest


def load(path, data):
    """What a checkpoint holds: dictionaries, lists and plain values, and Tensor and Thing in them."""
    if data[:2] == b"PK":
        return load_zip(path, data)
    if data[8:9] == b"{" and struct.unpack("<Q", data[:8])[0] <= len(data):
        return load_safetensors(path, data)
    return load_stream(data)


def load_zip(path, data):
    """torch.save's format since 1.6: NAME/data.pkl, and NAME/data/KEY for each storage."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = archive.namelist()
    code = [name for name in names if re.search(r"(^|/)code/|\.py$|\.so$|(^|/)constants\.pkl$", name)]
    if code:
        fail("%s: refused: it is a TorchScript archive or another one that holds code (%s); %s" % (path, code[0], ADVICE))
    unpacked = sum(record.file_size for record in archive.infolist())
    if unpacked > len(data):
        fail("%s: refused: its %.0f MB unpack to %.0f MB, and torch.save never compresses; if the file is your own, load it and "
             "torch.save it again" % (path, len(data) / 1e6, unpacked / 1e6))
    folders = [name[:-8] for name in names if re.search(r"(^|/)data\.pkl$", name)]
    if len(folders) != 1:
        raise ValueError("it is a zip archive, but not torch.save's")
    if folders[0] + "byteorder" in names and archive.read(folders[0] + "byteorder") != b"little":
        raise ValueError("it is a big-endian machine's")
    unpickler = Unpickler(io.BytesIO(archive.read(folders[0] + "data.pkl")))
    content = unpickler.load()
    record = functools.lru_cache(maxsize=1)(archive.read)  # all tensors may be views of one storage
    for key, storage in unpickler.storages.items():
        storage.read = functools.partial(record, "%sdata/%s" % (folders[0], key))
    return content


def load_stream(data):
    """torch.save's format before 1.6: magic number, version, machine, content, the storages' keys, then their bytes."""
    file = io.BytesIO(data)
    if [Unpickler(file).load() for _ in range(3)][:2] != [0x1950a86a20f9469cfc6c, 1001]:
        raise ValueError("it is a pickle, but not torch.save's")
    unpickler = Unpickler(file)
    content = unpickler.load()
    for key in Unpickler(file).load():
        storage = unpickler.storages[key]
        size = struct.unpack("<q", file.read(8))[0] * int(dict(FLOATS, **OTHERS)[storage.dtype][-1])
        start = file.tell()
        if not 0 <= size <= len(data) - start:
            raise ValueError("it ends within a storage")
        storage.read = lambda start=start, size=size: memoryview(data)[start:start + size]
        file.seek(start + size)
    return content


def load_safetensors(path, data):
    import numpy as np
    try:
        from safetensors import deserialize
    except ImportError:
        fail("%s: is in the safetensors format; to read it: pip install safetensors" % path)
    content = {}
    for name, value in deserialize(data):
        storage = Storage(SAFETENSORS.get(value["dtype"], value["dtype"]), lambda value=value: bytes(value["data"]))
        strides = [int(np.prod(value["shape"][axis + 1:])) for axis in range(len(value["shape"]))]
        content[name] = Tensor(storage, 0, value["shape"], strides)
    return content


# ---- the ResNet34 in it ----

def shapes(classes):
    """{name: shape} of the tensors that torchvision's resnet34 computes with."""
    layers, before = [("conv1", "bn1", (64, 3, 7, 7))], 64
    for stage, (blocks, width) in enumerate(zip(BLOCKS, WIDTHS), 1):
        for name in ("layer%d.%d." % (stage, block) for block in range(blocks)):
            layers.append((name + "conv1", name + "bn1", (width, before, 3, 3)))
            layers.append((name + "conv2", name + "bn2", (width, width, 3, 3)))
            if before != width:
                layers.append((name + "downsample.0", name + "downsample.1", (width, before, 1, 1)))
            before = width
    found = {"fc.weight": (classes, before), "fc.bias": (classes,)}
    for convolution, normalisation, shape in layers:
        found[convolution + ".weight"] = shape
        found.update({"%s.%s" % (normalisation, key): shape[:1] for key in ("weight", "bias", "running_mean", "running_var")})
    return found


def dictionaries(content):
    """(keys that lead to it, dictionary) of all dictionaries in a checkpoint, the outer ones first."""
    queue, seen = [((), content)], set()
    for keys, value in queue:
        if id(value) in seen or len(keys) > DEEPEST:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            yield keys, value
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
        queue += [(keys + ("%.80s" % (key,),), each) for key, each in items if isinstance(each, (dict, list, tuple))]


def prefixes(tensors, name):
    """What stands before a tensor's name in the keys that end with it."""
    return [key[:-len(name)] for key in tensors if key == name or key.endswith("." + name)]


class Candidate:
    """A ResNet's trunk in a dictionary, under a prefix, and its head (fc), under that or one other, held against a ResNet34's."""

    def __init__(self, keys, tensors, prefix, trunks):
        self.where, self.tensors, self.prefix = ".".join(keys), tensors, prefix
        self.name = ".".join(keys + ((prefix[:-1],) if prefix else ())) or "."
        heads = [head for head in prefixes(tensors, HEAD) if head == prefix or head not in trunks]
        self.head = heads[0] if len(heads) == 1 else prefix
        inside = [key for key in tensors if re.fullmatch(re.escape(self.head) + r"fc\.\d+\.weight", key)]
        # A Sequential of dropout and one linear layer is at inference that layer.
        fc = inside[0][:-len("weight")] if len(inside) == 1 and self.head + HEAD not in tensors else self.head + "fc."
        shape = self.shape_of(fc, "weight")
        self.classes = shape[0] if len(shape) == 2 else 1000
        self.names = {fc + name[len("fc."):] if name.startswith("fc.") else prefix + name: name for name in shapes(self.classes)}
        expected = dict(zip(self.names, shapes(self.classes).values()))
        # num_batches_tracked came with PyTorch 0.4.1, and inference never reads it.
        others = [key for key in tensors if key not in expected and not key.endswith(".num_batches_tracked")]
        other_nets = tuple(trunk for trunk in trunks if not prefix.startswith(trunk)) or ("\0",)
        unexpected = [key for key in others if not key.startswith(other_nets) and self.is_part(key)]
        self.passed_over = [key for key in others if key not in unexpected]
        self.problems = {
            "missing": [key for key in expected if key not in tensors], "unexpected": unexpected,
            "misshapen": ["%s %s instead of %s" % (key, tensors[key].shape, expected[key]) for key in expected
                          if key in tensors and tensors[key].storage and tensors[key].shape != expected[key]],
            "impossible": [] if 2 <= self.classes <= MOST_CLASSES else ["%d classes, not 2 to %d" % (self.classes, MOST_CLASSES)]}
        self.fits = not any(self.problems.values())

    def shape_of(self, prefix, name):
        return self.tensors[prefix + name].shape if prefix + name in self.tensors else ()

    def is_part(self, key):
        """Would another tensor make this another network? No counter does, and no number a class, such as a loss's weights."""
        tensor, inside = self.tensors[key], key.startswith(self.prefix)
        if tensor.storage and tensor.dtype not in FLOATS:
            return False
        if inside and re.match(r"(conv1|bn1|layer[1-4]|fc)\.", key[len(self.prefix):]):
            return True
        beside = key.endswith("weight") and tensor.shape[1:] in (WIDTHS[-1:], (self.classes,)) \
            or key.endswith("running_mean") and tensor.shape == (3,)  # another head, one behind it, or a layer before the net
        return tensor.shape != (self.classes,) and (inside or beside or self.head != self.prefix)

    def network(self):
        """What the network is called, as far as that can be told."""
        pattern = re.compile(re.escape(self.prefix) + r"layer([1-4])\.(\d{1,3})\.")
        found = [match.groups() for match in map(pattern.match, self.tensors) if match]
        blocks = tuple(max([1 + int(block) for stage, block in found if stage == number] or [0]) for number in "1234")
        depth = DEPTHS.get((self.prefix + "layer1.0.conv3.weight" in self.tensors, blocks), " with blocks %s" % (blocks,))
        width = self.shape_of(self.prefix, "layer1.0.conv2.weight")[:2]
        if width and width != WIDTHS[:1] * 2:
            return "%sResNet%s" % ("Wide-" if len(set(width)) == 1 else "grouped ", depth)
        relatives = [RELATIVES[name] for name in RELATIVES if self.prefix + name in self.tensors]
        return "ResNet%s" % depth if depth != 34 else (relatives + ["ResNet34 of another shape"])[0]

    def refusal(self):
        return "; ".join("%d %s (%s)" % (len(keys), kind, shown(keys)) for kind, keys in self.problems.items() if keys)

    def source(self):
        """What was taken, in a line."""
        used = " and ".join('"%s"' % prefix for prefix in sorted({self.prefix, self.head}) if prefix)
        return (self.where or "the whole file") + (", prefix %s" % used if used else "") + (
            "; passed over: %d (%s)" % (len(self.passed_over), shown(self.passed_over)) if self.passed_over else "")

    def numbers(self, path):
        """{torchvision's name: float32 array}, checked."""
        import numpy as np
        arrays = {}
        for key, name in self.names.items():
            if self.tensors[key].dtype not in FLOATS:
                fail("%s: %s holds %s values, not plain floating-point ones; save the weights before they are quantised or pruned"
                     % (path, key, self.tensors[key].dtype))
            arrays[name] = self.tensors[key].numbers()
            if not np.isfinite(arrays[name]).all():
                fail("%s: %s holds NaN or infinite values" % (path, key))
        return arrays


def require_normalisation(path, chosen, recipe):
    """Exit where a mean or deviation of an image's channels, of a layer that the graph will lack, is not what the recipe has."""
    for key in chosen.passed_over if recipe else ():
        match, tensor = re.search(r"(?:^|[._])(mean|mu|std|sigma)$", key), chosen.tensors[key]
        if match and tensor.storage and tensor.dtype in FLOATS and [side for side in tensor.shape if side != 1] == [3]:
            option = "mean" if match.group(1) in ("mean", "mu") else "std"
            values = tensor.numbers().ravel()
            values = values / 255 if values.max() > 2 else values
            if abs(values - getattr(recipe, option)).max() > 0.001:
                fail("%s: normalises its images itself, by %s, and its graph will not: give the export --%s %s (and the images)"
                     % (path, key, option, ",".join("%.4g" % value for value in values)))


def shown(keys):
    return ", ".join(key[:120] for key in keys[:5]) + (", ..." if len(keys) > 5 else "")


def find(path, data, name=None, recipe=None):
    """The ResNet34 in a checkpoint's bytes: ({torchvision's name: float32 array}, number of classes, a line on which it is, its
    name where another, or none, is taken without one, else "").

    name: which, where there are several; recipe: what its images are to go through. Exits where there is none, or several.
    """
    import numpy  # noqa: F401 - before the memory is bounded
    with files.bounded(path, data, "PyTorch checkpoint"):
        candidates, models, keys_there = [], [], []
        for keys, dictionary in dictionaries(load(path, data)):
            tensors = {key: value for key, value in dictionary.items() if isinstance(key, str) and isinstance(value, Tensor)}
            trunks = prefixes(tensors, TRUNK)
            candidates += [Candidate(keys, tensors, prefix, trunks) for prefix in trunks]
            keys_there = max(keys_there, list(tensors), key=len)
            if getattr(dictionary, "is_model", False):
                models.append(type(dictionary).__name__)
        if not candidates:
            fail("%s: %s" % (path, "holds a whole pickled model (%s), which is code; load it where it was made and %s" % (
                models[0], ADVICE) if models else "holds no state_dict of a ResNet (%s)" % (shown(keys_there) or "no tensors")))
        chosen, others, other_name = choose(path, candidates, name)
        require_normalisation(path, chosen, recipe)
        also = "; also there, for --weights: %s" % ", ".join(others) if others else ""
        return chosen.numbers(path), chosen.classes, chosen.source() + also, other_name


def choose(path, candidates, name):
    """(the Candidate that is meant, the names of the others that would do, its own where it is not the one without a name)."""
    same = {tuple(id(each.tensors[key].storage) for key in each.names): each for each in reversed(candidates) if each.fits}
    fitting = [each for each in candidates if each in same.values()]  # the same tensors under two names are one
    if not fitting:
        best = min(candidates, key=lambda each: sum(map(len, each.problems.values())))
        fail("%s: holds %s, not torchvision's ResNet34: %s" % (path, best.network(), best.refusal()))
    # An average of the weights stands behind them.
    first = [each for each in fitting if not re.search(r"(?<![a-z])ema(?![a-z])", each.name.lower())] or fitting
    meant = first if name is None else [each for each in fitting if name in (each.name, each.where, each.prefix[:-1])]
    if len(meant) != 1:
        fail("%s: holds %s: %s; choose one with --weights NAME" % (
            path, "several ResNet34s" if meant else "no ResNet34 of the name %s" % name,
            ", ".join(each.name for each in meant or fitting)))
    return meant[0], [each.name for each in fitting if each is not meant[0]], "" if meant == first else meant[0].name
