"""Reading, checking and splitting data: what is accepted, and what every refusal says."""

import bz2
import gzip
import itertools
import lzma
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.lab import _libsvm, datasets
from laconic.lab._data import DataError, as_rows, as_signs, as_targets, split_bounds
from laconic.lab._least_squares import LeastSquares
from laconic.lab._libsvm import load_libsvm
from laconic.lab._logistic import LogisticRegression
from laconic.lab._scale import scale_features
from laconic.lab.datasets import load_problem

GOOD = "-1 1:0.5 3:2\n# a comment\n+1 2:1e-3  # another\n\n+1 1:4\n-1\n"
DENSE = np.array([[0.5, 0, 2], [0, 1e-3, 0], [4, 0, 0], [0, 0, 0]])


def write(tmp_path, text, name="data.txt"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def one_line(info):
    message = str(info.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("a.txt", bytes),
        ("a.gz", gzip.compress),
        ("a.txt", gzip.compress),
        ("a.gz", bytes),
        ("a", bz2.compress),
        ("a.xz", lzma.compress),
        ("a.txt", lambda text: b"\xef\xbb\xbf" + text),
        ("a.txt", lambda text: gzip.compress(b"\xef\xbb\xbf" + text)),
    ],
)
def test_libsvm_plain_and_compressed(tmp_path, name, encode):
    X, y = load_libsvm(write(tmp_path, encode(GOOD.encode()), name))
    assert X.dtype == np.float64
    np.testing.assert_array_equal(X.toarray(), DENSE)
    np.testing.assert_array_equal(y, [-1, 1, 1, -1])


def test_utf16_is_named(tmp_path):
    with pytest.raises(DataError, match=r"data\.txt is UTF-16 text; save it as UTF-8") as info:
        load_libsvm(write(tmp_path, GOOD.encode("utf-16")))
    one_line(info)


def test_an_index_that_would_take_gigabytes_is_refused_with_its_size(tmp_path):
    with pytest.raises(DataError, match=r"uses index 2000000000: .* take 16 GB"):
        load_libsvm(write(tmp_path, "1 1:1\n2 2000000000:1\n"))


SCALES = "".join(f"{i % 2} 1:{i + 1} 2:{i + 1}e4\n" for i in range(8))


def test_large_features_are_named_as_small_ones_are_not(tmp_path):
    # As madelon: all of one scale, and no method moves.
    path = write(tmp_path, "1 1:480 2:510\n-1 1:470 2:490\n")
    with pytest.warns(UserWarning, match=r"480 in column 0 and 510 in column 1"):
        load_problem(path, nodes=2)
    # As rare words do in a text, for which a method moves.
    load_problem(write(tmp_path, "1 1:0.01\n-1 1:0.01 2:1\n"), nodes=2)


def test_large_files_and_long_vectors_are_announced(tmp_path, monkeypatch):
    path = write(tmp_path, "1 1:1 9:2\n-1 2:1\n")
    monkeypatch.setattr(_libsvm, "_LARGE", 10)
    with pytest.warns(UserWarning, match=r"data\.txt has .* GB: reading it takes minutes"):
        load_libsvm(path)
    monkeypatch.undo()
    monkeypatch.setattr(datasets, "_LARGE", 9 * 8 * 2 - 1)
    with pytest.warns(UserWarning, match=r"data\.txt uses index 9: the vectors of 2 nodes take"):
        load_problem(path, nodes=2)


def test_features_of_very_different_scales_are_named(tmp_path):
    path = write(tmp_path, SCALES)
    with pytest.warns(UserWarning, match=r"8 in column 0 and 8e\+04 in column 1 .*scale='maxabs'"):
        load_problem(path, nodes=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in ("maxabs", "standard"):
            load_problem(path, nodes=2, scale=scale)
        load_problem(write(tmp_path, SCALES.replace("e4", "e0")), nodes=2)


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"kind": "ridge"}, "kind must be one of 'logistic', 'least-squares', got 'ridge'"),
        ({"kind": "least_squares"}, "kind must be one of 'logistic', 'least-squares', got 'least_squares'"),
        ({"scale": "maxab"}, "scale must be one of 'none', 'maxabs', 'standard', got 'maxab'"),
    ],
)
def test_unknown_kinds_and_scales_are_refused_with_what_is_known(tmp_path, settings, allowed, from_file):
    file = write(tmp_path, SCALES.replace("e4", "e0")) if from_file else None
    with pytest.raises(DataError, match=allowed) as info:
        load_problem(file, nodes=2, **settings)
    one_line(info)


def test_a_path_may_be_text(tmp_path):
    path = write(tmp_path, SCALES.replace("e4", "e0"))
    loaded = load_problem(str(path), "least-squares", nodes=2)
    assert loaded.title == "data.txt"
    assert isinstance(loaded.problem, LeastSquares)


def test_scaling_keeps_zeros_and_divides_each_feature():
    X = as_rows(DENSE)
    np.testing.assert_allclose(scale_features(X, "maxabs").toarray(), DENSE / abs(DENSE).max(axis=0))
    np.testing.assert_allclose(scale_features(X, "standard").toarray(), DENSE / DENSE.std(axis=0))
    with pytest.raises(ValueError, match="scale must be one of none, maxabs, standard"):
        scale_features(X, "both")


def test_libsvm_counted_from_zero(tmp_path):
    X, _ = load_libsvm(write(tmp_path, "1 0:5 2:6\n2 1:7\n"))
    np.testing.assert_array_equal(X.toarray(), [[5, 0, 6], [0, 7, 0]])


def test_path_as_string(tmp_path):
    assert LeastSquares.from_libsvm(str(write(tmp_path, GOOD)), nodes=2).sizes == (2, 2)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.txt does not exist; pass the path") as info:
        LogisticRegression.from_libsvm(tmp_path / "nowhere.txt")
    one_line(info)
    with pytest.raises(DataError, match="is a folder, not a file"):
        load_libsvm(tmp_path)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("abc 1:1", "the label 'abc' is not a number"),
        ("1,2 1:1", "the label '1,2' is not a number"),
        ("1 1:x", "'1:x' is not index:value"),
        ("1 17", "'17' is not index:value"),
        ("1 a:1", "'a:1' is not index:value"),
        ("1 1:2:3", "'1:2:3' is not index:value"),
        ("1 -2:1", "the index of '-2:1' is out of range"),
        ("1 99999999999999999999:1", "is out of range"),
        ("1 3:1 2:1", r"the index of '2:1' does not ascend \(it follows 3\)"),
        ("1 3:1 3:1", "does not ascend"),
        ("1 1:" + "z" * 100, "'1:z{28}\\.\\.\\.' is not"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_malformed_line_is_named(tmp_path, bad, words, compressed):
    text = f"{GOOD}{bad}\n1 1:1\n".encode()
    path = write(tmp_path, gzip.compress(text) if compressed else text, "d.gz" if compressed else "d.txt")
    with pytest.raises(DataError, match=f", line 7: .*{words}.*; correct or delete the line") as info:
        load_libsvm(path)
    assert one_line(info).startswith(str(path))


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_empty_file(tmp_path, text):
    with pytest.raises(DataError, match="there is no data") as info:
        load_libsvm(write(tmp_path, text))
    assert one_line(info).startswith(str(tmp_path))


def test_damaged_archive(tmp_path):
    whole = gzip.compress(GOOD.encode() * 100)
    for content in (whole[:-30], whole[:20] + b"\0\0\0" + whole[23:]):
        with pytest.raises(DataError, match=r"cannot be read .*fetch it again") as info:
            load_libsvm(write(tmp_path, content, "d.gz"))
        one_line(info)


def test_not_finite_in_file(tmp_path):
    with pytest.raises(DataError, match=r"data\.txt: row 1, column 1 .* is nan; remove the row"):
        load_libsvm(write(tmp_path, "1 1:1\n2 2:nan\n"))
    with pytest.raises(DataError, match=r"the label of row 1 .* is inf; remove the row"):
        load_libsvm(write(tmp_path, "1 1:1\ninf 2:1\n"))


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        lambda a: a.tolist(),
        np.asfortranarray,
        scipy.sparse.csr_array,
        scipy.sparse.csc_matrix,
        scipy.sparse.coo_array,
        scipy.sparse.lil_matrix,
        torch.from_numpy,
        lambda a: torch.from_numpy(a).to_sparse(),
        lambda a: torch.from_numpy(a).to_sparse().to_sparse_csc(),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")  # torch calls its compressed layouts beta
def test_every_kind_of_matrix(convert):
    np.testing.assert_array_equal(as_rows(convert(DENSE)).toarray(), DENSE)


def test_integer_and_single_precision_matrices():
    assert as_rows(np.eye(3, dtype=np.float32)).dtype == np.float64
    assert as_rows(torch.eye(3, dtype=torch.int64)).dtype == np.float64
    assert as_rows(np.eye(3, dtype=bool)).dtype == np.float64


def test_duplicate_entries_add_up():
    X = scipy.sparse.coo_array(([1.0, 2.0, 4.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    np.testing.assert_array_equal(as_rows(X).toarray(), [[0, 3], [4, 0]])


def test_data_are_copied():
    for X in (scipy.sparse.csr_array(DENSE), DENSE.copy()):
        problem = LeastSquares.from_arrays(X, np.zeros(4), nodes=1)
        before = problem.gradient(torch.ones(3, dtype=torch.float64))
        (X.data if scipy.sparse.issparse(X) else X)[:] = 7.0
        assert torch.equal(problem.gradient(torch.ones(3, dtype=torch.float64)), before)


@pytest.mark.parametrize("X", [np.ones(3), np.ones((2, 2, 2)), np.array([["a"]]), np.ones((2, 2)) * 1j])
def test_not_a_real_matrix(X):
    with pytest.raises(DataError, match=r"must be a real matrix .* pass a two-dimensional"):
        as_rows(X)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_matrix(shape):
    with pytest.raises(DataError, match="there is no data"):
        as_rows(np.ones(shape))


@pytest.mark.parametrize("convert", [np.asarray, scipy.sparse.csc_array, torch.from_numpy])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_in_memory(convert, value):
    X = np.eye(4)
    X[2, 1] = value
    with pytest.raises(DataError, match=f"row 2, column 1 .* is {value}"):
        as_rows(convert(X))


@pytest.mark.parametrize("y", [np.ones(3), np.ones((4, 1)), ["a", "b", "c", "d"], np.ones(4) * 1j])
def test_labels_that_do_not_fit(y):
    with pytest.raises(DataError, match="one real label for each of the 4 rows"):
        as_targets(y, 4)


def test_labels_of_any_real_type():
    for y in ([0, 1], (False, True), torch.tensor([0.0, 1.0]), np.array([0, 1], dtype=np.int8)):
        assert as_targets(y, 2).tolist() == [0.0, 1.0]


def test_two_classes_become_signs():
    assert as_signs(np.array([2.0, 1.0, 2.0])).tolist() == [1, -1, 1]
    assert as_signs(np.array([0.0, 7.0])).tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("y", "found"),
    [
        ([1, 1, 1, 1], "found 1: 1;"),
        ([0, 1, 2, 2], "found 3: 0, 1, 2;"),
        (list(range(6)), "found 6: 0, 1, 2, 3, 4, ...;"),
    ],
)
def test_not_two_classes(tmp_path, y, found):
    with pytest.raises(DataError, match="exactly two classes") as info:
        LogisticRegression.from_arrays(np.eye(len(y)), y, nodes=1)
    assert found in one_line(info)
    assert "LeastSquares, which takes any labels" in str(info.value)
    path = write(tmp_path, "".join(f"{label} 1:1\n" for label in y))
    with pytest.raises(DataError, match=r"data\.txt: logistic regression needs"):
        LogisticRegression.from_libsvm(path, nodes=1)
    LeastSquares.from_libsvm(path, nodes=1)


@given(st.integers(1, 3000), st.data())
def test_split_is_contiguous_and_the_last_takes_the_rest(rows, data):
    nodes = data.draw(st.integers(1, rows))
    bounds = split_bounds(rows, nodes)
    sizes = [b - a for a, b in itertools.pairwise(bounds)]
    assert bounds[0] == 0
    assert bounds[-1] == rows
    assert sizes[:-1] == [rows // nodes] * (nodes - 1)
    assert sizes[-1] == rows - (nodes - 1) * (rows // nodes) >= 1


def test_splits_that_cannot_be(tmp_path):
    with pytest.raises(DataError, match="nodes must be at least 1, got 0"):
        split_bounds(5, 0)
    with pytest.raises(DataError, match="6 nodes cannot share 5 rows; pass nodes=5 or fewer"):
        split_bounds(5, 6)
    with pytest.raises(TypeError):
        split_bounds(5, 2.0)
    with pytest.raises(DataError, match=r"data\.txt: 20 nodes cannot share 4 rows"):
        LogisticRegression.from_libsvm(write(tmp_path, GOOD))


@pytest.mark.parametrize("regularizer", [-0.1, float("nan"), float("inf")])
def test_regularizer_that_cannot_be(regularizer):
    with pytest.raises(DataError, match="regularizer must be a finite number, at least 0"):
        LogisticRegression.from_arrays(np.eye(2), [0, 1], nodes=1, regularizer=regularizer)
