"""Stand-in for the compiled aclruntime: the names that ais_bench's front ends of both generations use, over ONNX Runtime."""
import ctypes
import os
import sys
import time
from types import SimpleNamespace

PURE_INFER_DATA, PURE_INFER_DATA_ZERO, PURE_INFER_DATA_RANDOM = ("pure_infer_data" + end for end in ("", "_zero", "_random"))
BYTES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}
COPIES = {"H2D": [], "D2H": []}  # milliseconds of the copies to a device and back, of all sessions of the process


def log_info(message):
    sys.stdout.write("[INFO] %s\n" % message)


log_debug = log_warning = log_error = log_info


def set_log_level(level):
    pass


def get_run_mode():
    return 1  # a card in a host: memory must be copied


class session_options:
    def __init__(self):
        self.acl_json_path, self.log_level, self.loop = "", 2, 1


class MemorySummary:
    H2D_time_list, D2H_time_list = COPIES["H2D"], COPIES["D2H"]

    def reset(self):
        del COPIES["H2D"][:], COPIES["D2H"][:]


class BaseTensor:
    """A view of host memory: the address and the size, as the real one of 0.0.2 takes them."""

    def __init__(self, address, size):
        self.data = np.frombuffer((ctypes.c_char * size).from_address(address), np.uint8)


class Tensor:
    def __init__(self, array, device_id=None):
        self.data, self.on_device = np.ascontiguousarray(array), False
        if device_id is not None:
            self.to_device(device_id)

    def copied(self, way):
        start = time.perf_counter()
        self.data = self.data.copy()
        COPIES[way].append((time.perf_counter() - start) * 1000)

    def to_device(self, device_id):
        self.on_device = True
        self.copied("H2D")

    def to_host(self):
        self.on_device = False
        self.copied("D2H")

    @property
    def shape(self):
        return self.data.shape

    def __array__(self, dtype=None, copy=None):
        if self.on_device:
            raise RuntimeError("the tensor is on the device: call to_host first")
        return self.data if dtype is None else self.data.astype(dtype)


def open_device(device_id, failing):
    """As a device that cannot be opened is told: CANN's lines, then an exception with few words, or with none."""
    if "busy:%d" % device_id in failing:
        sys.stdout.write("[ERROR] load model from file failed, model file is x.om\n")
        sys.stderr.write("infer:  50%|#####     | 1/2 [00:00<00:00, 3.20it/s]\r\n"
                         "EE9999: Inner Error, Please contact support engineer!\n"
                         "EE9999  [Call][RtModelLoad] rtModelLoad failed, runtime result = 507033.[FUNC:Load][FILE:model.cc]\n")
        raise RuntimeError()
    if "wordless:%d" % device_id in failing:
        raise RuntimeError()


class InferenceSession:
    def __init__(self, model_path, device_id, options):
        open_device(device_id, os.environ.get("STANDIN_FAIL", "").split())
        if not 0 <= device_id < int(os.environ.get("STANDIN_DEVICES", "2")):
            raise RuntimeError("[-1][ACL: invalid device] device %d" % device_id)
        if {"device:%d" % device_id, "device0:%d" % device_id} & set(os.environ.get("STANDIN_FAIL", "").split()):
            raise RuntimeError("[-1][ACL: device fault] device %d" % device_id)
        with open(model_path, "rb") as file:
            data = file.read()
        if data[:4] != b"IMOD":
            raise RuntimeError("[-1][ACL: parse model failed] %s is no om" % model_path)
        global np
        import numpy as np
        import onnxruntime  # both here, so that --help answers at once
        limits = onnxruntime.SessionOptions()
        limits.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(data[4:], limits, providers=["CPUExecutionProvider"])
        self.own_options, self.times = options, []

    def describe(self, values):
        described = []
        for value in values:
            size = int(np.prod(value.shape)) * np.dtype(BYTES[value.type]).itemsize
            described.append(SimpleNamespace(name=value.name, shape=list(value.shape), size=size, realsize=size))
        return described

    def get_inputs(self):
        return self.describe(self.session.get_inputs())

    def get_outputs(self):
        return self.describe(self.session.get_outputs())

    def options(self):
        return self.own_options

    def set_staticbatch(self):
        pass

    def get_dym_aipp_input_exist(self):
        return 0  # the AIPP that atc compiles in is static

    def run(self, output_names, feeds):
        (described,), (told,) = self.get_inputs(), self.session.get_inputs()
        data = feeds[0].data.reshape(-1).view(np.uint8)
        if data.nbytes != described.realsize:
            raise RuntimeError("[-1][ACL: invalid input size] %d instead of %d" % (data.nbytes, described.realsize))
        images = data.view(BYTES[told.type]).reshape(described.shape)
        for _ in range(self.own_options.loop):
            start = time.perf_counter()
            outputs = self.session.run(output_names, {described.name: images})
            self.times.append((start * 1000, time.perf_counter() * 1000))
        results = [Tensor(output) for output in outputs]
        for result in results:
            result.on_device = True
        return results

    def reset_sumaryinfo(self):
        self.times = []

    def sumary(self):
        return SimpleNamespace(exec_time_list=[end - start for start, end in self.times])

    reset_summaryinfo = reset_sumaryinfo  # newer spelling

    def summary(self):
        return SimpleNamespace(exec_time_list=self.times)

    def free_resource(self):
        pass

    @staticmethod
    def finalize():  # of the instance in 0.0.2, of the class in newer ones
        pass
