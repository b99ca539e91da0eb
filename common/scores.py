"""One image's scores as a file: TXT, BIN and NPY as ais_bench writes them, and what TXT's %f cannot hold."""
import collections
import io

import numpy as np

FORMATS = ("TXT", "BIN", "NPY")
DTYPES = ("float32", "float16", "float64")  # that scores may have
# `%f ` in three words of four bytes, for values below 1000: sign and whole part (padded with NULs), three decimals, three more.
WHOLE = np.frombuffer("".join(sign + ("%d" % n).rjust(3, "\0") for sign in "\0-" for n in range(1000)).encode(), "<u4")
MILLI = np.frombuffer("".join(".%03d" % n for n in range(1000)).encode(), "<u4")
MICRO = np.frombuffer("".join("%03d " % n for n in range(1000)).encode(), "<u4")
HUGE = 1e15  # no network scores so high; float64 read as pairs of float32 does
BACKGROUND = 1001  # classes of a model that counts a background class first, as the ModelZoo's script knows


def encode(values, outfmt):
    """The bytes of a result file: values is a numpy array (1, classes), or (rows, ...)."""
    if outfmt == "TXT":
        return as_text(values)
    if outfmt == "BIN":
        return values.tobytes()
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def as_text(values):
    """`%f ` for each value, a newline after each row, as ais_bench writes them, in a third of the time.

    A float32 times 10^6 is exact in a double, so that rounding it to a whole number gives the digits of %f.
    """
    values = values.reshape(-1, values.shape[-1] if values.ndim else 1)
    if values.dtype != "<f4" or not np.all(np.abs(values) < 1000):
        return "".join("%f " * len(row) % tuple(row) + "\n" for row in values.tolist()).encode()
    micros = np.rint(np.abs(values.astype(np.float64)) * 1e6).astype(np.uint32)
    whole = micros // 1000000
    micros -= whole * 1000000
    millis = micros // 1000
    words = np.empty(values.shape + (3,), "<u4")
    words[..., 0] = WHOLE[whole + np.uint32(1000) * np.signbit(values)]
    words[..., 1] = MILLI[millis]
    words[..., 2] = MICRO[micros - millis * 1000]
    return b"".join(row.tobytes().translate(None, b"\0") + b"\n" for row in words)


def decode(data, outfmt, dtype=None):
    """The scores of one result's bytes as a 1-d array; of TXT in %f as int64 millionths, which rank alike. Else ValueError.

    dtype: what the summary says of BIN and NPY; without it BIN is taken for float32 (see possible_dtypes).
    """
    if not data:
        raise ValueError("is empty: its writing did not end, or the disk was full")
    try:
        if outfmt == "TXT":
            scores = _parse_text(data)
        elif outfmt == "NPY":
            scores = _parse_npy(data, dtype)
        else:
            scores = np.frombuffer(data, np.dtype(dtype or "float32").newbyteorder("<"))
    except Exception as error:  # numpy's reader of headers lets ast's and tokenize's through
        raise ValueError("holds no row of %s scores: %s" % (dtype or "float32", error)) from None
    if scores.size < 2:
        raise ValueError("holds %d scores" % scores.size)
    if scores.dtype.kind == "f" and not np.isfinite(scores).all():
        raise ValueError("holds NaN or infinite scores")
    return scores


def possible_dtypes(rows, least=2):
    """The names of the dtypes that BIN results may have of which nothing is recorded; rows: the bytes of some, least: of classes.

    Floats read as floats of another width are spread over many more powers of two, and some are NaN or huge, or every other is 0.
    """
    length = collections.Counter(map(len, rows)).most_common(1)[0][0]
    rows = [row for row in rows if len(row) == length]
    readings = {dtype: _plausible(rows, dtype) for dtype in DTYPES if length and length % np.dtype(dtype).itemsize == 0}
    most = max([len(values) for values in readings.values()] + [0])
    readings = {dtype: values for dtype, values in readings.items() if len(values) == most > 0}
    likely = ({dtype: values for dtype, values in readings.items() if are_probabilities(values)}
              or {dtype: values for dtype, values in readings.items() if values[:, ::2].any() or not values.any()} or readings)
    spreads = {dtype: float(np.log2(np.abs(values[values != 0])).std()) if values.any() else 0.0
               for dtype, values in likely.items()}
    near = [dtype for dtype in spreads if spreads[dtype] <= 2 * min(spreads.values()) + 0.5]
    return [dtype for dtype in near if readings[dtype].shape[1] >= max(2, least)] or near[:1] or ["float32"]


def _plausible(rows, dtype):
    """The rows, bytes of equal length, whose values of a dtype are neither NaN nor huge, as float64 (rows, classes)."""
    with np.errstate(all="ignore"):
        values = np.frombuffer(b"".join(rows), np.dtype(dtype).newbyteorder("<")).astype(np.float64).reshape(len(rows), -1)
    return values[(np.abs(values) < HUGE).all(axis=1)]


def _parse_npy(data, dtype):
    file = io.BytesIO(data)
    values = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):
        raise ValueError("there is more behind its array")
    if values.dtype.kind != "f" or not values.shape or values.shape[-1] != values.size:
        raise ValueError("%s of shape %s by its header" % (values.dtype, values.shape))
    if dtype and values.dtype.name != dtype:
        raise ValueError("%s by its header, %s by its summary" % (values.dtype, dtype))
    return values.reshape(-1)


def _parse_text(data):
    """One line of numbers. All in %f: without its dots the line is of whole millionths, which is read three times as fast."""
    if b"\n" in data.strip():
        raise ValueError("more than one line")
    characters = np.frombuffer(data, np.uint8)
    dots = np.flatnonzero(characters == ord("."))
    if dots.size and dots[-1] + 7 < characters.size:
        six_decimals = (characters[dots + 7] <= ord(" ")).all()
        fits_int64 = dots.size == 1 or np.diff(dots).max() <= 18
        if six_decimals and fits_int64 and dots[0] <= 11 and not data.translate(None, b"0123456789-. \r\n"):
            scores = np.fromstring(data.replace(b".", b""), np.int64, sep=" ")
            if scores.size == dots.size == data.count(b" ", 0, len(data.rstrip())) + 1:
                return scores
    return np.array([float(number) for number in data.split()])


def as_floats(scores):
    """Scores as decode gives them, in float64 and in the file's own unit."""
    return scores / 1e6 if scores.dtype.kind == "i" else scores.astype(np.float64)


def are_probabilities(rows):
    """Whether an array (..., classes) of float scores is the end of a softmax: within 0 to 1, and together 1 but for rounding."""
    rows = np.asarray(rows, np.float64)
    return bool(((rows >= 0) & (rows <= 1)).all() and (np.abs(rows.sum(axis=-1) - 1) < 1e-3).all())


def flattened(rows):
    """How many rows of float scores (images, classes) have fewer different values among their six largest in %f than they have.

    Ties in float stay ties whatever the format; those that %f makes change ranks.
    """
    count = 0
    for row in rows:
        best = np.unique(row.astype(np.float64))[-6:]
        count += len(np.unique(np.round(best, 6))) < len(best)
    return count


def flattened_text(rows):
    """How many rows of float scores read from TXT have equal ones among their six largest that %f may have made so.

    It may below 1, where float32 is finer than %f. Values that fp16 has are passed over, since in fp16 such ties are the net's
    own, but not the ends of a sigmoid, where its scores crowd.
    """
    count = 0
    for row in rows:
        best = np.sort(row)[-6:]
        tied = best[1:][best[1:] == best[:-1]]
        halves = np.round(tied.astype(np.float16).astype(np.float64), 6) == tied
        crowded = (np.abs(tied) < 0.01) | (tied == 1)
        count += bool(((np.abs(tied) <= 1) & (crowded | ~halves)).any())
    return count
