"""common/files.py: what is the same file, files that are there whole or not at all, and never over somebody else's."""
import os
import resource
import signal
import subprocess
import sys

import pytest
import xxhash
from conftest import REPOSITORY, wait_until

sys.path.insert(0, str(REPOSITORY))
from common import files
from common.command import Failure

PREAMBLE = "import sys; sys.path.insert(0, %r)\nfrom common import files\n" % str(REPOSITORY)


def python(code, *arguments, **options):
    return subprocess.Popen([sys.executable, "-c", PREAMBLE + code] + [str(each) for each in arguments], **options)


def stat_of(path):
    return files.stat_of(os.stat(str(path)))


# Identity.

def test_a_file_is_the_same_when_its_bytes_are_and_when_its_stat_is_nothing_is_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"picture")
    was, content = stat_of(path), xxhash.xxh3_128_hexdigest(b"picture")
    assert was == [7, path.stat().st_mtime_ns, path.stat().st_ctime_ns, path.stat().st_ino] and files.xxh(b"picture") == content
    assert files.is_same(str(path), "of no interest then", was)
    os.utime(str(path), (1e9, 1e9))
    assert files.is_same(str(path), content, was) and not files.is_same(str(path), "another", was)
    path.write_bytes(b"Picture")
    os.utime(str(path), ns=(was[1], was[1]))  # equal size and time
    assert not files.is_same(str(path), content, was)
    path.unlink()
    assert not files.is_same(str(path), content, was)


def test_the_hash_of_a_set_is_of_names_and_contents_in_any_order():
    pairs = [("a", "1"), ("b", "2"), ("\udcff", "3")]
    assert files.set_hash(pairs) == files.set_hash(iter(pairs[::-1])) and len(files.set_hash([])) == 32
    for other in (pairs[:2], [("a", "2"), ("b", "1"), pairs[2]], pairs + pairs[:1]):
        assert files.set_hash(other) != files.set_hash(pairs)


def test_the_sha256_is_the_one_that_sha256sum_prints(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 999999)
    printed = subprocess.run(["sha256sum", str(tmp_path / "a")], stdout=subprocess.PIPE).stdout.decode().split()[0]
    assert files.sha256_of(str(tmp_path / "a")) == files.sha256(b"abc" * 999999) == printed


# Reading.

def test_what_is_no_file_or_too_large_is_an_error_with_its_name(tmp_path):
    os.mkfifo(str(tmp_path / "fifo"))
    (tmp_path / "large").write_bytes(b"12345")
    for name, what in (("fifo", "no regular file"), ("large", "larger"), ("missing", "No such file"), ("", "is a folder")):
        with pytest.raises(OSError, match=what) as error:
            files.read(str(tmp_path / name), 4)
        assert error.value.filename == str(tmp_path / name)
    assert files.read_with_stat(str(tmp_path / "large")) == (b"12345", stat_of(tmp_path / "large"))


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[]", b'{"a": NaN}', b"[" * 99999])
def test_json_that_is_none_of_ours_is_one_sentence(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(Failure, match="a.json: "):
        files.read_json(str(tmp_path / "a.json"))
    assert text == b'{"a": NaN}' or files.peek_json(str(tmp_path / "a.json")) == {}


def test_json_that_lacks_something_or_has_it_otherwise_is_one_sentence():
    for look in (lambda content: content["b"], lambda content: content["a"]["b"], lambda content: content["a"] / 0,
                 lambda content: content.b, lambda content: int("x")):
        with pytest.raises(Failure, match="a.json: is not as the stage that makes it writes it"):
            with files.as_written("a.json"):
                look({"a": 1})


def test_lines_are_read_with_any_ends_and_a_bom():
    assert files.lines_of(b"\xef\xbb\xbfa 1\r\n b\t2 \rc\n\xff") == ["a 1", "b\t2", "c", "\udcff"]


# Writing.

def test_a_file_is_written_whole_under_any_name_and_replaces_the_old_one(tmp_path):
    for name in ("a", "n" * 255, "-x\n'"):
        for data in (b"first", b"second" * 99999, b""):
            files.write(str(tmp_path / name), data)
            assert (tmp_path / name).read_bytes() == data
    assert len(list(tmp_path.iterdir())) == 3


def test_where_the_disk_is_full_the_old_files_stay_and_nothing_else(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    process = python("files.write_all({sys.argv[1] + '/a': b'new', sys.argv[1] + '/b': b'x' * 9999})", tmp_path,
                     stderr=subprocess.PIPE, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)))
    assert b"File too large: '%s/b'" % os.fsencode(str(tmp_path)) in process.communicate()[1] and process.returncode
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_what_a_killed_run_was_writing_is_removed_by_the_next_and_what_a_living_one_writes_is_not(tmp_path):
    code = ("import time\ndef slowly(file, data): file.write(b'half'); time.sleep(60)\n"
            "files.write_bytes = slowly\nfiles.write(sys.argv[1], b'whole')")
    process = python(code, tmp_path / "a")
    try:
        [temporary] = wait_until(lambda: [path for path in tmp_path.iterdir() if path.stat().st_size], process)
        files.write(str(tmp_path / "b"), b"b")
        assert temporary.exists() and not (tmp_path / "a").exists()
    finally:
        process.kill()
        process.wait()
    (tmp_path / ".resnet34.mine.tmp").write_bytes(b"a user's own")
    files.write(str(tmp_path / "b"), b"b")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".resnet34.mine.tmp", "b"]


def test_one_run_at_a_time_holds_a_folder_until_it_ends_however_that_is(tmp_path):
    process = python("files.lock(sys.argv[1]); print(flush=True); import time; time.sleep(60)", tmp_path, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        with pytest.raises(Failure, match="another run is at work in this folder .*%d" % process.pid):
            files.lock(str(tmp_path))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    os.close(files.lock(str(tmp_path)))


def test_an_output_never_has_an_inputs_name_and_never_replaces_what_is_not_ours(tmp_path):
    (tmp_path / "in").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for name in ("in", "link", "x/../in"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(Failure, match="is read here and would be overwritten"):
            files.check_output(str(tmp_path / name), [None, str(tmp_path / "in")], overwrite=True)
    for name, what in (("no/out", "folder does not exist"), ("x", "is a folder")):
        with pytest.raises(Failure, match=what):
            files.check_output(str(tmp_path / name))
    with pytest.raises(Failure, match="not of this command's making"):
        files.check_output(str(tmp_path / "in"), ours=lambda path: False)
    files.check_output(str(tmp_path / "in"), ours=lambda path: False, overwrite=True)
    files.check_output(str(tmp_path / "in"), ours=lambda path: True)
    files.check_output(str(tmp_path / "new"), ours=lambda path: False)


# An artefact and what it was made from.

def test_an_artefact_is_kept_while_it_is_what_was_made_of_just_this(tmp_path):
    path = str(tmp_path / "a.onnx")
    files.write_recorded(path, b"graph", {"weights": "1"}, classes=10)
    assert files.is_kept(path, {"weights": "1"}) and files.record_of(path)["classes"] == 10
    assert not files.is_kept(path, {"weights": "2"}) and files.is_recorded(path)
    os.utime(path, (1e9, 1e9))
    assert files.is_kept(path, {"weights": "1"})  # the bytes are the same
    (tmp_path / "a.onnx").write_bytes(b"GRAPH")
    assert not files.is_kept(path, {"weights": "1"}) and not files.is_recorded(path)


def test_a_run_that_was_killed_while_it_made_an_artefact_leaves_it_ours_and_not_kept(tmp_path):
    path = str(tmp_path / "a.onnx")
    assert files.is_recorded(path)  # nothing is there
    files.begin_recorded(path, {"weights": "1"})
    assert files.is_recorded(path) and not files.is_kept(path, {"weights": "1"})
    files.write(path, b"graph")
    assert files.is_recorded(path) and not files.is_kept(path, {"weights": "1"})


def test_an_artefact_that_a_full_disk_does_not_take_leaves_the_old_one_kept(tmp_path):
    path = str(tmp_path / "a.onnx")
    files.write_recorded(path, b"graph", {"weights": "1"})
    process = python("files.write_recorded(sys.argv[1], b'x' * 9999, {'weights': '2'}, {sys.argv[1] + '.txt': b'list'})", path,
                     stderr=subprocess.PIPE, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)))
    assert b"File too large: '%s'" % os.fsencode(path) in process.communicate()[1] and process.returncode
    assert files.is_kept(path, {"weights": "1"}) and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("earlier", [b"graph", None])
def test_a_run_that_was_killed_between_the_record_and_the_artefact_leaves_both_ours_and_not_kept(tmp_path, earlier):
    path, code = str(tmp_path / "a.onnx"), ("import os\nreplace = os.replace\n"
        "def once(*paths): replace(*paths); os._exit(9)\n"
        "os.replace = once\nfiles.write_recorded(sys.argv[1], b'GRAPH', {'weights': '2'})")
    if earlier:
        files.write_recorded(path, earlier, {"weights": "1"})
    assert python(code, path).wait() == 9 and files.record_of(path)["made_from"] == {"weights": "2"}
    assert files.is_recorded(path) and not any(files.is_kept(path, {"weights": number}) for number in "12")
    files.write_recorded(path, b"GRAPH", {"weights": "2"})
    assert files.is_kept(path, {"weights": "2"})
    (tmp_path / "a.onnx").write_bytes(b"somebody's")
    assert not files.is_recorded(path)


def test_a_json_where_no_artefact_is_is_somebodys(tmp_path):
    (tmp_path / "b.onnx.json").write_text('{"mine": 1}')
    with pytest.raises(Failure, match="b.onnx.json: is there and not of this command's making"):
        files.check_output(str(tmp_path / "b.onnx"), ours=files.is_recorded)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"record": 1}', '{"record": 1, "made_from": {}}', '{"record": 9}'])
def test_a_file_without_a_record_of_ours_is_somebody_elses(tmp_path, text):
    (tmp_path / "a.onnx").write_bytes(b"mine")
    if text is not None:
        (tmp_path / "a.onnx.json").write_text(text)
    assert not files.is_recorded(str(tmp_path / "a.onnx")) and not files.is_kept(str(tmp_path / "a.onnx"), {})
