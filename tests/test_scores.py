"""common/scores.py: result files as ais_bench writes them, byte for byte, and what a file says that no summary describes."""
import numpy as np
import pytest

from common import scores

ROWS = 3 * np.random.RandomState(0).standard_normal((8, 600))


@pytest.mark.parametrize("values", [
    [[0.0, -0.0, 1.0, -1.5, 999.9999995, 0.0000005, 0.0000015, -0.00000049, 12.3456785]], [[1000.0, -1e6, 2.5]], [[1e15, 3e38]],
    [[1, 2, 3]], [[0.25], [0.5]], 7.5])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_text_is_percent_f_of_each_value(values, dtype):
    values = np.array(values).astype(dtype)
    rows = values.reshape(-1, values.shape[-1] if values.ndim else 1)
    expected = "".join("".join("%f " % value for value in row) + "\n" for row in rows.tolist())
    assert scores.encode(values, "TXT") == expected.encode()


def test_text_of_many_float32_values_is_percent_f_of_each():
    values = np.random.RandomState(1).standard_normal((5, 20000)).astype("<f4") * np.float32([[1e-6], [1e-3], [1], [30], [300]])
    assert scores.as_text(values) == b"".join(b"%f " * 20000 % tuple(row) + b"\n" for row in values.tolist())


@pytest.mark.parametrize("outfmt", scores.FORMATS)
@pytest.mark.parametrize("dtype", scores.DTYPES)
def test_what_is_encoded_is_decoded(outfmt, dtype):
    row = ROWS[:1].astype(dtype)
    values = scores.as_floats(scores.decode(scores.encode(row, outfmt), outfmt, dtype))
    assert np.array_equal(values, np.round(row[0].astype(np.float64), 6) if outfmt == "TXT" else row[0].astype(np.float64))


def test_text_in_six_decimals_is_read_as_whole_millionths():
    assert scores.decode(b"1.500000 -0.000001 \n", "TXT").tolist() == [1500000, -1]
    assert scores.decode(b"1.5 -0.000001 \n", "TXT").tolist() == [1.5, -0.000001]


@pytest.mark.parametrize("data, outfmt, dtype, said", [
    (b"", "TXT", None, "is empty"), (b"1.0 2.0\n3.0\n", "TXT", None, "more than one line"),
    (b"1.000000 \n", "TXT", None, "1 scores"), (b"123", "BIN", "float32", "holds no row of float32"),
    (b"\0\0\xc0\x7f" * 3, "BIN", "float32", "NaN or infinite"),
    (scores.encode(ROWS[:1], "NPY"), "NPY", "float32", "float64 by its header, float32 by its summary"),
    (scores.encode(ROWS[:2], "NPY"), "NPY", None, "of shape (2, 600) by its header"),
    (b"\x93NUMPY\x01\0((", "NPY", None, "no row")])
def test_what_is_no_row_of_scores_is_a_sentence(data, outfmt, dtype, said):
    with pytest.raises(ValueError) as caught:
        scores.decode(data, outfmt, dtype)
    assert said in str(caught.value)


def softmax(rows):
    powers = np.exp(rows)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", scores.DTYPES)
@pytest.mark.parametrize("classes", [10, 20, 21, 600])
@pytest.mark.parametrize("make", [
    lambda rows: rows, softmax, lambda rows: softmax(4 * rows), lambda rows: np.round(rows, 1), lambda rows: rows / 100,
    lambda rows: 1 / (1 + np.exp(-rows)), lambda rows: np.eye(600)[:8]],
    ids=["scores", "softmax", "sharp softmax", "few digits", "small", "sigmoid", "one-hot"])
def test_bins_of_which_nothing_is_recorded_tell_their_dtype(dtype, classes, make):
    rows = [row[:classes].astype(dtype).tobytes() for row in make(ROWS)]
    assert scores.possible_dtypes(rows) == [dtype]


def test_a_damaged_bin_among_right_ones_does_not_decide():
    rows = [row.astype("<f4").tobytes() for row in ROWS]
    for damaged in (b"", rows[0][:-2], np.full(600, np.nan, "<f4").tobytes()):
        assert scores.possible_dtypes([damaged] + rows[1:]) == ["float32"]
    assert scores.possible_dtypes([b""]) == scores.possible_dtypes([np.full(4, np.nan, "<f4").tobytes()]) == ["float32"]


def test_what_nothing_tells_is_open_but_for_the_number_of_classes():
    constant = [np.full(8, 1.0009765625, "<f2").tobytes()]
    assert scores.possible_dtypes(constant) == ["float32", "float16", "float64"]
    assert scores.possible_dtypes(constant, 3) == ["float32", "float16"] and scores.possible_dtypes(constant, 5) == ["float16"]


def test_only_the_end_of_a_softmax_are_probabilities():
    assert scores.are_probabilities(softmax(ROWS).astype("<f2"))
    assert not scores.are_probabilities(ROWS) and not scores.are_probabilities(1 / (1 + np.exp(-ROWS)))


def test_rows_whose_best_scores_percent_f_makes_equal_are_counted():
    near = np.arange(10) * 1e-7
    assert scores.flattened(np.stack([near, near + 1, np.arange(10.0), np.zeros(10)])) == 2
