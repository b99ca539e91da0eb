"""How every command of the suite behaves at its edges: stop signals, sentences, exit codes, argument types, a full output.

A script imports this before all else, so that Ctrl-C and a missing package end in a sentence from the first moment on, and ends
with `command.run(main)`. Exit codes: 0 done; 1 failed; 2 wrong usage; 3 a verdict against the results; 130, 143 stopped.
"""
import argparse
import contextlib
import math
import os
import re
import signal
import sys

STOPS = (signal.SIGINT, signal.SIGTERM)
stop_sentence = "stopped; what was finished is kept, the same line goes on"  # one that keeps nothing has its own
stop_code = 0  # the exit code, once a signal has come
holding, held = False, []  # whether stops wait, and those that do


class Failure(Exception):
    """What ends a command: its text is the sentence for the user, its code the exit code."""

    def __init__(self, sentence, code=1):
        super().__init__(sentence)
        self.code = code


def fail(sentence, code=1):
    """End the command: which file, what is wrong, what to do."""
    raise Failure(sentence, code)


def warn(sentence):
    sys.stderr.write("warning: %s\n" % one_line(sentence))


def one_line(text, most=2000):
    """A text as one line that a terminal only shows: no line breaks, no control characters, no half surrogates, not endless."""
    text = " ".join(str(text).split())
    text = "".join(letter if letter.isprintable() else "\\x%02x" % ord(letter) for letter in text)
    return text if len(text) <= most else text[:most - 3] + "..."


def first_line(error):
    """What an exception says, without the rest of a library's lecture; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def progress(total, unit, what, initial=0):
    """A tqdm bar on stderr; quiet where that is no terminal."""
    from tqdm import tqdm
    return tqdm(total=total, initial=initial, unit=unit, desc=what, disable=None)


def stopped(number, frame):
    """Ctrl-C, or the SIGTERM of a scheduler: a sentence, then SystemExit, which ends all `with` and `finally` on its way."""
    global stop_code
    if holding:
        held.append(number)
        return
    for each in STOPS:
        signal.signal(each, signal.SIG_IGN)
    stop_code = 128 + number
    with contextlib.suppress(OSError):
        os.write(2, (stop_sentence + "\n").encode())
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no library adds to it where it was interrupted
    sys.exit(stop_code)


@contextlib.contextmanager
def stops_held():
    """A block that no stop interrupts: it comes at its end. Blocking the signals would leave them to a library's threads."""
    global holding
    holding = True
    try:
        yield
    finally:
        holding = False
        if held:
            stopped(held[0], None)


def explain_exception(kind, error, trace):
    """sys.excepthook: a package that is missing is a sentence, too, also while the script is still being loaded."""
    if not issubclass(kind, ImportError):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write("error: %s; install what requirements.txt lists: %s -m pip install -r requirements.txt\n"
                     % (one_line(error), sys.executable))


signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # who starts a command may have them blocked, and it would inherit that
for _number in STOPS:
    if signal.getsignal(_number) is not signal.SIG_IGN:  # nohup, and `&` in scripts, ignore Ctrl-C on purpose
        signal.signal(_number, stopped)
sys.excepthook = explain_exception


def run(main):
    """Run a command's main() and exit with what it returns (None is 0); whatever the outside world does ends in a sentence."""
    for stream in (sys.stdout, sys.stderr):  # file names need not be text
        stream.reconfigure(errors="backslashreplace")
    try:
        try:
            code = main()
        finally:
            sys.stdout.flush()
    except Failure as error:
        sentence, code = str(error), error.code
    except OSError as error:
        if error.filename is None:  # the standard output's: Python's own flush at the end shall be silent
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sentence, code = "%s: %s" % (error.filename or "standard output", error.strerror or error), 1
    except MemoryError:
        sentence, code = "not enough memory", 1
    except Exception:
        if not stop_code:  # a C++ module that is being loaded makes a RuntimeError of the stop
            raise
        sys.exit(stop_code)
    else:
        sys.exit(code or 0)
    sys.stderr.write("error: %s\n" % one_line(sentence))
    sys.exit(code)


# ---- the command line ----

def parser(docstring, **options):
    """An ArgumentParser that shows what a script's docstring begins with: its first line, and its indented examples."""
    lines = docstring.splitlines()
    examples = [line for line in lines if line.startswith("    ")]
    return argparse.ArgumentParser(description=lines[0], epilog="\n".join(["example:"] + examples),
                                   formatter_class=argparse.RawDescriptionHelpFormatter, **options)


def whole(least=1, most=10 ** 9):
    """A type for argparse: a whole number from least to most."""
    return number(least, most, int, "whole number")


def number(least, most, kind=float, what="number"):
    """A type for argparse: a number from least to most."""
    def parse_number(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError("%r is no %s from %s to %s" % (text, what, least, most))
        return value
    return parse_number


def devices(text):
    """A type for argparse: "0,1", each once, as a list."""
    numbers = [int(word) for word in text.split(",") if re.match("[0-9]{1,3}$", word)]
    if len(set(numbers)) < len(text.split(",")):
        raise argparse.ArgumentTypeError("%r is no list of different devices, as in 0 or 0,1" % text)
    return numbers


def share(text):
    """A type for argparse: "K/N", the K-th of N blocks, as [K, N]."""
    first, _, last = text.partition("/")
    if not (first.isdigit() and last.isdigit() and len(text) < 20 and 1 <= int(first) <= int(last)):
        raise argparse.ArgumentTypeError("%r is not K/N with K from 1 to N" % text)
    return [int(first), int(last)]


def block(items, shard):
    """The items of shard [K, N] of a list: N blocks whose sizes differ by one at most."""
    index, count = shard
    return items[(index - 1) * len(items) // count:index * len(items) // count]
