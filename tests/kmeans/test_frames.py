"""Data frames of pandas and polars: rows in, `set_output` out, and what is refused."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ktfast import KMeans
from support.kmeans_cases import mixture

pandas = pytest.importorskip("pandas", reason="pandas is not installed")
polars = pytest.importorskip("polars", reason="polars is not installed")

NAMES = ["a", "b", "c"]


def as_pandas(x):
    return pandas.DataFrame(x, columns=NAMES, index=np.arange(len(x))[::-1])


def as_polars(x):
    return polars.DataFrame(x, schema=NAMES)


def as_arrow_columns(x):
    return as_pandas(x).convert_dtypes(dtype_backend="pyarrow")


MAKES = [as_pandas, as_polars, as_arrow_columns]


@pytest.fixture
def x():
    return mixture(200, d=3).astype(np.float64)


@pytest.mark.parametrize("make", MAKES)
def test_a_frame_gives_the_labels_of_its_array(make, x):
    expected = KMeans(4, random_state=0).fit(x)
    found = KMeans(4, random_state=0).fit(make(x))
    np.testing.assert_array_equal(found.labels_, expected.labels_)
    np.testing.assert_array_equal(found.cluster_centers_, expected.cluster_centers_)
    np.testing.assert_array_equal(found.predict(make(x)), expected.labels_)
    assert found.feature_names_in_.tolist() == NAMES
    assert found.get_feature_names_out().tolist() == [f"kmeans{i}" for i in range(4)]
    with pytest.raises(ValueError, match="same order as they were in fit"):
        found.predict(make(x)[NAMES[::-1]])


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("library", [pandas, polars])
def test_set_output_gives_a_frame(make, library, x):
    expected = KMeans(4, random_state=0).fit_transform(x)
    frame = make(x)
    model = KMeans(4, random_state=0).set_output(transform=library.__name__).fit(frame)
    for out in (model.transform(frame), model.fit_transform(frame)):
        assert isinstance(out, library.DataFrame)
        assert list(out.columns) == [f"kmeans{i}" for i in range(4)]
        np.testing.assert_array_equal(out.to_numpy(), expected)
        if library is pandas and isinstance(frame, pandas.DataFrame):
            assert out.index.equals(frame.index)


def test_a_pipeline_gives_a_frame(x):
    pipeline = make_pipeline(StandardScaler(), KMeans(4, random_state=0))
    out = pipeline.set_output(transform="pandas").fit_transform(as_pandas(x))
    assert out.shape == (200, 4)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda x: pandas.DataFrame.sparse.from_spmatrix(scipy.sparse.csr_matrix(x)),
            TypeError,
            r"Sparse data was passed for X.*sparse\.to_dense",
        ),
        (lambda x: as_polars(x).lazy(), TypeError, r"X is a LazyFrame.*X\.collect\(\)"),
        (lambda x: polars.DataFrame({"e": x.tolist()}), ValueError, "X has cells that hold lists"),
        (lambda x: pandas.DataFrame({"e": list(x)}), ValueError, "X has cells that hold lists"),
        (lambda x: [[1.0, 2.0], [3.0]], ValueError, "rows of different lengths"),
        (lambda x: as_pandas(x).where(x > x.min()), ValueError, "X contains NaN in row"),
        (lambda x: as_pandas(x).astype(str) + "x", ValueError, "could not convert string"),
    ],
)
def test_frames_that_hold_no_dense_numbers_are_refused(make, kind, message, x):
    with pytest.raises(kind, match=message):
        KMeans(4).fit(make(x))


@pytest.mark.parametrize("make", MAKES)
def test_the_parts_of_a_sequence_have_the_same_columns(make, recwarn):
    x = mixture(60, 3, 4)
    whole, frame = KMeans(4, random_state=0).fit(make(x)), make(x)
    parts = [frame[:20], frame[20:]]
    fitted = KMeans(4, random_state=0).fit(parts)
    assert fitted.feature_names_in_.tolist() == NAMES
    assert fitted.predict(parts).tolist() == whole.labels_.tolist()
    assert len(recwarn) == 0
    turned = frame[NAMES[::-1]]
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict([turned])
    with pytest.raises(ValueError, match=r"X\[1\] has the columns \['c', 'b', 'a'\], and X\[0\]"):
        KMeans(4).fit([frame, turned])
