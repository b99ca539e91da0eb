"""common/command.py: how every command of the suite behaves at its edges, seen on real processes."""
import argparse
import os
import signal
import subprocess
import sys

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY))
from common import command

PREAMBLE = "import sys; sys.path.insert(0, %r)\nfrom common import command\nfrom common.command import fail\n" % str(REPOSITORY)


def run(body, **options):
    """A command whose main() is this body."""
    source = PREAMBLE + "def main():\n" + "".join("    %s\n" % line for line in body.splitlines()) + "command.run(main)\n"
    return subprocess.run([sys.executable, "-c", source], capture_output=True, encoding="utf-8", errors="replace", **options)


@pytest.mark.parametrize("body, code, sentence", [
    ("pass", 0, ""), ("return 3", 3, ""), ("fail('a file: is wrong')", 1, "error: a file: is wrong\n"),
    ("fail('the accuracy is below', 3)", 3, "error: the accuracy is below\n"),
    ("open('/no/such/file')", 1, "error: /no/such/file: No such file or directory\n"),
    ("raise MemoryError", 1, "error: not enough memory\n"),
    ("fail('two\\nlines\\x1b[31m')", 1, "error: two lines\\x1b[31m\n")])
def test_each_end_of_a_command_has_its_code_and_its_one_sentence(body, code, sentence):
    process = run(body)
    assert (process.returncode, process.stderr) == (code, sentence)


def test_a_missing_package_is_a_sentence_with_what_to_install_also_while_the_script_is_loaded():
    process = subprocess.run([sys.executable, "-c", PREAMBLE + "import no_such_package"], capture_output=True, encoding="utf-8")
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert "no_such_package" in process.stderr and "-m pip install -r requirements.txt" in process.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_a_sentence_and_128_more_than_the_signal_and_finally_is_done(number):
    process = run("import os\ntry:\n    os.kill(os.getpid(), %d)\nfinally:\n    print('tidied')" % number)
    assert process.returncode == 128 + number and process.stdout == "tidied\n"
    assert process.stderr == "stopped; what was finished is kept, the same line goes on\n"


def test_a_stop_within_a_held_block_comes_at_its_end_also_with_threads_that_could_take_it():
    process = run("import os, threading, time\nthreading.Thread(target=time.sleep, args=(1,), daemon=True).start()\n"
                  "with command.stops_held():\n    os.kill(os.getpid(), 15)\n    time.sleep(0.1)\n    print('whole')\n"
                  "print('not reached')")
    assert process.returncode == 143 and process.stdout == "whole\n"


def test_ctrl_c_that_is_ignored_on_purpose_stays_ignored():
    process = run("import os\nos.kill(os.getpid(), %d)\nprint('goes on')" % signal.SIGINT,
                  preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert process.returncode == 0 and process.stdout == "goes on\n"


def test_a_full_or_closed_output_is_a_sentence():
    with open("/dev/full", "w") as full:
        source = PREAMBLE + "command.run(lambda: print('a line'))"
        process = subprocess.run([sys.executable, "-c", source], stdout=full, stderr=subprocess.PIPE, encoding="utf-8")
    assert process.returncode == 1 and process.stderr == "error: standard output: No space left on device\n"


def test_names_that_are_no_text_can_be_printed():
    process = run("print(b'caf\\xe9'.decode('utf-8', 'surrogateescape'))", env=dict(os.environ, PYTHONIOENCODING="utf-8"))
    assert process.returncode == 0 and process.stdout == "caf\\udce9\n"


def test_numbers_are_held_to_their_bounds():
    assert command.whole(1, 9)("9") == 9 and command.number(0, 1)("0.5") == 0.5
    for kind, texts in ((command.whole(1, 9), ("0", "10", "1.5", "x", "")), (command.number(0, 1), ("nan", "2", "-1", "x"))):
        for text in texts:
            with pytest.raises(argparse.ArgumentTypeError):
                kind(text)


def test_shards_are_blocks_that_together_are_everything():
    assert command.share("2/3") == [2, 3]
    for text in ("0/3", "4/3", "1", "/", "a/b", "1/2/3"):
        with pytest.raises(argparse.ArgumentTypeError):
            command.share(text)
    items = list(range(10))
    blocks = [command.block(items, [index, 3]) for index in (1, 2, 3)]
    assert sum(blocks, []) == items and {len(block) for block in blocks} == {3, 4}
