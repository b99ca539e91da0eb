"""common/ascend.py: what messages mean, which CANN is there, and which versions go with it."""
import pytest

from common import ascend

# As real ones print them: Huawei's pages on each code, its forum, and the issues of vllm-ascend, Ascend/samples and gpustack.
REAL = [
    ("EC0010: Failed to import Python module [AttributeError: `np.float_` was removed in the NumPy 2.0 release.].",
     "numpy 2"),
    ("TypeError: cannot pickle 'FrameLocalsProxy' object", "too new"),
    ("RuntimeError: no input for device 1", "fewer images than devices"),
    ("OverflowError: get list part failed", "fewer images than devices"),
    ("E40020: Failed to import Python module [ModuleNotFoundError: No module named 'sympy'.].", "cannot import a Python module"),
    ("ModuleNotFoundError: No module named 'decorator'", "requirements-ascend.txt"),
    ("ModuleNotFoundError: No module named 'aclruntime'", "msit install benchmark"),
    ("ModuleNotFoundError: No module named 'te'", "source its set_env.sh"),
    ("ImportError: aclruntime.cpython-39-aarch64-linux-gnu.so: undefined symbol: aclrtSetDeviceSatMode", "another CANN"),
    ("ImportError: libascendcl.so: cannot open shared object file: No such file or directory", "set_env.sh"),
    ("E10001: Value [linux] for parameter [--host_env_os] is invalid. Reason: os not supported", "Ascend-cann-CHIP-ops"),
    ("E10001: Value [linux] for parameter [host env os] is invalid.", "Ascend-cann-CHIP-ops"),
    ("E10001: Value [Ascend999] for parameter [--soc_version] is invalid.", "does not know this chip"),
    ("E10016: Opname [input] specified in [--input_shape] is not found in the model", "the ONNX file's own name"),
    ("E19010: No parser is registered for Op [/model.0/conv/Conv, optype [ai.onnx::19::Conv]].", "an older one"),
    ("E19010: [PID: 36056] No parser is registered for Op [node_Cast_1, optype [pkg.onnxscript.torch_lib.common::1::Cast]].",
     "cannot read"),
    ("E40001: Failed to import the Python module: [te_fusion]", "requirements-ascend.txt"),
    ("E40021: Failed to compile Op [Conv_0]. (oppath: [/usr/local], optype: [Conv2D])", "could not be compiled"),
    ("EE1001: The argument is invalid.Reason: set ASCEND_RT_VISIBLE_DEVICES:4 error, input data rang[0-2)", "no such device"),
    ("open device 0 failed, runtime result = 107001.[FUNC:ReportCallError]", "no such device"),
    ("aclrtSetDevice: open device 0 failed, runtime result = 507033", "did not start"),
    ("[ERROR] acl set device 0 failed, errorCode = 507033", "did not start"),
    ("NPU function error: c10_npu::SetDevice(device_id_), error code is 507033", "did not start"),
    ("rtIpcOpenMemory failed, ret 507899", "driver and CANN"), ("execute model failed, error code is 507011", "while it ran"),
    ("acl ret 107002", "no device is open"), ("op not found, ret 100024", "operator package"),
    ("acl ret[500002]", "internal error"), ("acl ret 100016", "compile it again"), ("acl ret 207006", "HwHiAiUser"),
    ("EL0004: Failed to allocate memory requested by RUNTIME module.", "memory is used up"),
    ("aclrtMalloc failed, ret 207001", "memory is used up"),
    ("EE1015: The driver version capacity is insufficient.", "upgrade it"),
    ("EE9999: Inner Error! rtModelLoad execute failed", "internal error"), ("EZ9999: Inner Error!", "internal error"),
]


@pytest.mark.parametrize("line, word", REAL)
def test_a_message_is_explained_with_its_remedy(line, word):
    sentence = ascend.explain("ATC start working now, please wait for a moment.\n%s\nTraceBack (most recent call last):\n" % line)
    assert word in sentence and "\n" not in sentence


def test_what_came_first_in_the_table_counts_and_what_is_not_known_is_not_explained():
    assert "numpy 2" in ascend.explain("EZ9999: Inner Error!\nE40020: ... np.float_ was removed in the NumPy 2.0 release")
    for text in ("", "ATC run success, welcome to the next use.", "507033 images/s", "throughput 107002.1", "E10041: no aipp_op"):
        assert ascend.explain(text) == ""


@pytest.mark.parametrize("version, release", [
    ("6.0.RC1", (6, 0)), ("8.0.0", (8, 0)), ("8.1.RC1", (8, 1)), ("7.0.RC1.1", (7, 0)), ("8.5.0.alpha001", (8, 5)),
    ("9.1.0-beta.1", (9, 1)), ("8.5", (8, 5)), ("7.7.0.5.238", None), ("unknown", None), ("7.6.T10.0.B213", None)])
def test_only_a_releases_name_is_one(version, release):
    assert ascend.release(version) == release


def test_the_versions_that_go_together_are_those_of_the_newest_row_below():
    assert ascend.together("6.3.RC1") == ((3, 10), 2, None) and ascend.together("8.3.RC2") == ((3, 11), 2, "3.20")
    assert ascend.together("9.9.0") == ascend.together("9.1.0") and ascend.together("5.0.4") == (None, None, None)


@pytest.mark.parametrize("files, version", [
    ({"ascend_toolkit_install.info": "package_name=x\nversion=8.0.RC3\n"}, "8.0.RC3"),
    ({"x86_64-linux/ascend_toolkit_install.info": "version=8.1.RC1\n"}, "8.1.RC1"),
    ({"version.cfg": "# version: 1.0\nruntime_running_version=[7.7.0.5.238:8.1.RC1]\n"}, "8.1.RC1"),
    ({"compiler/version.info": "Version=7.7.0.5.238\n"}, "7.7.0.5.238"), ({}, "unknown"),
    ({"version.info": "nothing of it\n", "runtime/version.info": "Version: 1.84\n"}, "1.84")])
def test_canns_version_is_read_from_whichever_file_there_is(files, version, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(tmp_path))
    assert ascend.cann_version() == version


def test_since_8_5_the_folder_that_cann_links_to_tells_the_version(tmp_path, monkeypatch):
    (tmp_path / "cann-8.5.0").mkdir()
    (tmp_path / "cann").symlink_to("cann-8.5.0")
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(tmp_path / "cann"))
    assert ascend.cann_version() == "8.5.0"
