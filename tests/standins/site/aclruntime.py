"""Stand-in for the compiled aclruntime: the classes that ais_bench's front ends use, over ONNX Runtime."""
import ctypes
import os
import time
from types import SimpleNamespace

import numpy as np
import onnxruntime


class session_options:
    def __init__(self):
        self.acl_json_path, self.log_level, self.loop = "", 2, 1


class BaseTensor:
    """A view of host memory: the address and the size, as the real one takes them."""

    def __init__(self, address, size):
        self.data = np.frombuffer((ctypes.c_char * size).from_address(address), np.uint8)


class Tensor:
    def __init__(self, array):
        self.data, self.on_device = np.ascontiguousarray(array), False

    def to_device(self, device_id):
        self.on_device = True

    def to_host(self):
        self.on_device = False

    def __array__(self, dtype=None, copy=None):
        if self.on_device:
            raise RuntimeError("the tensor is on the device: call to_host first")
        return self.data if dtype is None else self.data.astype(dtype)


class InferenceSession:
    def __init__(self, model_path, device_id, options):
        if not 0 <= device_id < int(os.environ.get("STANDIN_DEVICES", "2")):
            raise RuntimeError("[-1][ACL: invalid device] device %d" % device_id)
        if {"device:%d" % device_id, "device0:%d" % device_id} & set(os.environ.get("STANDIN_FAIL", "").split()):
            raise RuntimeError("[-1][ACL: device fault] device %d" % device_id)
        with open(model_path, "rb") as file:
            data = file.read()
        if data[:4] != b"IMOD":
            raise RuntimeError("[-1][ACL: parse model failed] %s is no om" % model_path)
        limits = onnxruntime.SessionOptions()
        limits.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(data[4:], limits, providers=["CPUExecutionProvider"])
        self.own_options, self.times = options, []

    def describe(self, values):
        return [SimpleNamespace(name=value.name, shape=list(value.shape), size=4 * int(np.prod(value.shape)),
                                realsize=4 * int(np.prod(value.shape))) for value in values]

    def get_inputs(self):
        return self.describe(self.session.get_inputs())

    def get_outputs(self):
        return self.describe(self.session.get_outputs())

    def options(self):
        return self.own_options

    def set_staticbatch(self):
        pass

    def run(self, output_names, feeds):
        (described,) = self.get_inputs()
        data = feeds[0].data.reshape(-1).view(np.uint8)
        if data.nbytes != described.realsize:
            raise RuntimeError("[-1][ACL: invalid input size] %d instead of %d" % (data.nbytes, described.realsize))
        image = data.view(np.float32).reshape(described.shape)
        for _ in range(self.own_options.loop):
            start = time.time()
            outputs = self.session.run(output_names, {described.name: image})
            self.times.append((time.time() - start) * 1000)
        results = [Tensor(output) for output in outputs]
        for result in results:
            result.to_device(0)
        return results

    def reset_sumaryinfo(self):
        self.times = []

    def sumary(self):
        return SimpleNamespace(exec_time_list=self.times)

    def finalize(self):
        pass
