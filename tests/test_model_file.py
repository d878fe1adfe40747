"""Files that are no sound model: each is a ValueError that says so, and none costs memory."""

import io
import json
import pickle
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from fastsoftmax import FastSoftmax
from fastsoftmax.archives import members_of

HOSTILE = "is no model saved by FastSoftmax.save, or it is damaged"


class Exploit:
    """What runs code where it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a file was unpickled",)


@pytest.fixture
def model(rng):
    X = rng.normal(size=(60, 4))
    y = (X[:, :3] + 0.5 * rng.gumbel(size=(60, 3))).argmax(axis=1)
    model = FastSoftmax(n_jobs=1, momentum=0.5, class_weight={0: 2.0})
    return model.fit(X, y).partial_fit(X, y)


@pytest.fixture
def sound(model):
    """The bytes of a file."""
    file = io.BytesIO()
    model.save(file)
    return file.getvalue()


@pytest.fixture
def members(sound):
    """The members of a file, by their names."""
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members, **options):
    """A file of members, some of which may be given twice."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", **options) as archive:
        warnings.simplefilter("ignore")  # of names given twice
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
    return file.getvalue()


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), **options)
    return file.getvalue()


def npy_of(header, data=b"", version=b"\x01\x00"):
    """A member of any header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def header_of(members):
    return json.loads(np.load(io.BytesIO(members["header.npy"])).tobytes())


def with_header(members, change=None, text=None):
    """The members with another header."""
    header = header_of(members)
    if change:
        change(header)
    data = json.dumps(header).encode() if text is None else text
    return members | {"header.npy": npy(np.frombuffer(data, dtype=np.uint8))}


def refused(data, message=""):
    """Whether a file is refused, and quietly, with little memory."""
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ValueError, match=f"{HOSTILE}.*{message}"):
                FastSoftmax.load(io.BytesIO(data))
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()


def test_what_these_tests_make_is_otherwise_sound(model, members):
    again = FastSoftmax.load(io.BytesIO(zipped(with_header(members))))
    np.testing.assert_array_equal(again.coef_, model.coef_)
    assert set(members) == {f"{n}.npy" for n in ("header", "classes", "coef", "intercept")} | {
        "velocity.npy"
    }


class TestArchive:
    @pytest.mark.parametrize("data", [b"", b"x", b"PK\x03\x04", b"\x80\x04N.", b"\x93NUMPY" * 9])
    def test_no_archive(self, data):
        refused(data)

    def test_pickles_are_not_read(self):
        refused(pickle.dumps(Exploit()))

    def test_other_archives_of_numpy(self):
        file = io.BytesIO()
        np.savez(file, coef=np.zeros((3, 4)))
        refused(file.getvalue(), "members are not those of a model")

    def test_truncated_anywhere(self, sound):
        for length in range(0, len(sound), 37):
            refused(sound[:length])

    def test_any_byte_changed(self, model, sound, rng):
        """An error or, where the byte has no meaning (dates, comments), the same model."""
        for place in rng.permutation(len(sound))[:400]:
            damaged = bytearray(sound)
            damaged[place] ^= int(rng.integers(1, 256))
            try:
                again = FastSoftmax.load(io.BytesIO(bytes(damaged)))
            except ValueError as error:
                assert HOSTILE in str(error)
            else:
                np.testing.assert_array_equal(again.coef_, model.coef_)

    def test_noise(self, rng):
        for size in (10, 100, 10_000):
            refused(rng.bytes(size))

    @pytest.mark.parametrize("name", ["header", "classes", "coef", "intercept"])
    def test_missing_members(self, members, name):
        del members[f"{name}.npy"]
        refused(zipped(members))

    @pytest.mark.parametrize(
        "name", ["other.npy", "../coef.npy", "/etc/coef.npy", "C:\\coef.npy", "a/", "coef"]
    )
    def test_unknown_members(self, members, name):
        refused(zipped(members | {name: b"x"}), "members are not those of a model")

    def test_members_given_twice(self, members):
        refused(zipped([*members.items(), ("coef.npy", members["coef.npy"])]), "members are not")

    def test_compressed_bombs(self, members):
        bomb = members | {"coef.npy": npy_of("", bytes(300_000_000))}
        data = zipped(bomb, compression=zipfile.ZIP_DEFLATED)
        assert len(data) < 1e6
        refused(data, "coef.npy is compressed|header.npy is compressed")

    @pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_compressed(self, members, method):
        refused(zipped(members, compression=method), "compressed")

    @pytest.mark.parametrize("field", ["both", "file_size", "compress_size"])
    def test_sizes_that_are_a_lie(self, members, field):
        """The directory at the end of the file declares 4 GB for a member of 200 bytes."""
        data = bytearray(zipped(members))
        entry = data.rindex(b"PK\x01\x02")
        for name, place in (("compress_size", 20), ("file_size", 24)):
            if field in (name, "both"):
                data[entry + place : entry + place + 4] = struct.pack("<I", 0xFFFFFFF0)
        refused(bytes(data))

    def test_members_in_the_same_place(self, members):
        """A few thousand of them would be as large as a disk."""
        data = bytearray(zipped(members))
        first, last = (find(b"PK\x01\x02") for find in (data.index, data.rindex))
        data[last + 42 : last + 46] = data[first + 42 : first + 46]
        refused(bytes(data))

    def test_members_that_are_larger_together_than_the_file(self):
        """Each of them would be read, one after the other."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("x.npy", npy(np.zeros(1000)))
            archive.filelist.extend(archive.filelist * 99)
        with zipfile.ZipFile(file) as archive:
            assert len(archive.infolist()) == 100
            with pytest.raises(ValueError, match="said to be larger than the file"):
                members_of(archive, file.getbuffer().nbytes)

    def test_encrypted(self, members):
        data = bytearray(zipped(members))
        entry = data.index(b"PK\x01\x02")
        data[entry + 8] |= 1
        refused(bytes(data), "encrypted")


class TestArrays:
    @pytest.mark.parametrize(
        "coef",
        [
            np.zeros((3, 5)),
            np.zeros((2, 4)),
            np.zeros((1, 4)),
            np.zeros(12),
            np.zeros((3, 4, 1)),
            np.zeros(()),
            np.zeros((0, 4)),
            np.zeros((3, 0)),
            np.zeros((3, 4), dtype=np.float32),
            np.zeros((3, 4), dtype=np.float16),
            np.zeros((3, 4), dtype=np.int64),
            np.zeros((3, 4), dtype=complex),
            np.zeros((3, 4), dtype="M8[s]"),
            np.zeros((3, 4), dtype="V8"),
            np.zeros((3, 4), dtype="f8,f8"),
            np.asfortranarray(np.zeros((3, 4))),
            np.full((3, 4), np.nan),
            np.full((3, 4), -np.inf),
        ],
        ids=lambda a: f"{a.dtype}{a.shape}{a.flat[:1]}",
    )
    def test_coefficients(self, members, coef):
        refused(zipped(members | {"coef.npy": npy(coef)}))

    @pytest.mark.parametrize(
        "name", ["header.npy", "classes.npy", "coef.npy", "intercept.npy", "velocity.npy"]
    )
    def test_objects_are_not_unpickled(self, members, name):
        array = np.array([Exploit()] * 3, dtype=object)
        refused(zipped(members | {name: npy(array, allow_pickle=True)}), "dtype or an order")

    @pytest.mark.parametrize(
        "header",
        [
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000000), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 1152921504606846980), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-3, -4), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 5), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3.0, 4), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3L, 4L), }",
            "{'descr': '<U0', 'fortran_order': False, 'shape': (9999999999, 4), }",
            "{'descr': '<f8', 'fortran_order': False, }",
            "{'descr': ('<f8', (1000000000,)), 'fortran_order': False, 'shape': (3, 4), }",
            "{'descr': 'nothing', 'fortran_order': False, 'shape': (3, 4), }",
            "{'descr': '|O', 'fortran_order': False, 'shape': (3, 4), }",
            "__import__('os').abort()",
            "(" * 9000,
            "9" * 9000,
            "",
        ],
        ids=lambda text: text[:70],
    )
    def test_headers_of_arrays(self, members, header):
        refused(zipped(members | {"coef.npy": npy_of(header, bytes(96))}))

    @pytest.mark.parametrize("version", [b"\x02\x00", b"\x03\x00", b"\x09\x09"])
    def test_versions_of_arrays(self, members, version):
        header = "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }"
        refused(zipped(members | {"coef.npy": npy_of(header, bytes(96), version)}))

    @pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: d[:5]])
    @pytest.mark.parametrize("name", ["coef.npy", "classes.npy"])
    def test_lengths(self, members, name, change):
        refused(zipped(members | {name: change(members[name])}))

    @pytest.mark.parametrize(
        "classes",
        [
            [0, 2, 1],
            [0, 1, 1],
            [0, 1],
            [0, 1, 2, 3],
            [0],
            [[0, 1, 2]],
            [0.0, 1.0, np.nan],
            [np.nan, 0.0, 1.0],
            ["b", "a", "c"],
            [1j, 2j, 3j],
            np.array([1, 2, 3], dtype="M8[D]"),
            np.array([b"a", b"b", b"c"]),
        ],
        ids=repr,
    )
    def test_classes(self, members, classes):
        refused(zipped(members | {"classes.npy": npy(classes)}))

    @pytest.mark.parametrize("velocity", [np.zeros(14), np.zeros((3, 5)), np.full(15, np.nan)])
    def test_velocity(self, members, velocity):
        refused(zipped(members | {"velocity.npy": npy(velocity)}), "velocity")

    def test_byte_order(self, model, members):
        """What a big-endian machine has saved is read."""
        for name in ("coef", "intercept", "velocity", "classes"):
            array = np.load(io.BytesIO(members[f"{name}.npy"]))
            members[f"{name}.npy"] = npy(array.astype(array.dtype.newbyteorder(">")))
        again = FastSoftmax.load(io.BytesIO(zipped(members)))
        assert again.coef_.dtype.isnative
        assert again.classes_.dtype == model.classes_.dtype
        np.testing.assert_array_equal(again.coef_, model.coef_)


class TestHeader:
    @pytest.mark.parametrize(
        "text",
        [b"x", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 100_000, b"9" * 100_000, b'{"format": 1'],
        ids=lambda text: repr(text[:9]),
    )
    def test_other_texts(self, members, text):
        refused(zipped(with_header(members, text=text)))

    def test_a_newer_format_says_so(self, members):
        def newer(header):
            header["format_version"] = 3
            header["fastsoftmax_version"] = "9.8.7"
            header["more"] = "of it"

        refused(zipped(with_header(members, newer)), "format 3, of fastsoftmax '9.8.7'.*upgrade")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("format", "other"),
            ("format_version", 0),
            ("format_version", "1"),
            ("format_version", True),
            ("fastsoftmax_version", None),
            ("estimator", 3),
            ("parameters", None),
            ("parameters", []),
            ("parameters", {"C": {}}),
            ("parameters", {"C": [1.0]}),
            ("parameters", {"n_jobs": 10**30}),
            ("parameters", {"class_weight": [1]}),
            ("parameters", {"class_weight": [[[1], 2]]}),
            ("classes", []),
            ("classes", [0, 1, 2]),
            ("n_features_in", 5),
            ("n_features_in", -4),
            ("n_features_in", 4.0),
            ("n_features_in", True),
            ("feature_names_in", ["a"]),
            ("feature_names_in", ["a", "b", "c", 4]),
            ("feature_names_in", "abcd"),
            ("n_iter", -1),
            ("n_iter", 2**31),
            ("n_iter", 1.5),
            ("gap", -1.0),
            ("gap", float("nan")),
            ("gap", "0"),
            ("converged", 1),
            ("objective", "low"),
            ("temperature", 0.0),
            ("temperature", float("inf")),
            ("temperature", float("nan")),
            ("weight_seen", -1.0),
            ("weight_seen", float("nan")),
            ("more", 1),
        ],
    )
    def test_values(self, members, name, value):
        refused(zipped(with_header(members, lambda header: header.update({name: value}))))

    def test_missing_keys(self, members):
        for name in header_of(members):
            refused(zipped(with_header(members, lambda header, name=name: header.pop(name))))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("C", -1.0),
            ("C", "1"),
            ("solver", "none"),
            ("backend", "os"),
            ("n_jobs", 0),
            ("max_iter", 1.5),
            ("random_state", -1),
            ("class_weight", "heavy"),
            ("nothing", 1),
            ("__class__", 1),
            ("coef_", 1),
        ],
    )
    def test_parameters(self, members, name, value):
        """As if a user had given them: with the estimator's own message."""
        members = with_header(members, lambda header: header["parameters"].update({name: value}))
        with pytest.raises(ValueError, match=name):
            FastSoftmax.load(io.BytesIO(zipped(members)))

    @pytest.mark.parametrize(
        "classes",
        [["b", "a", "c"], ["a", "a", "b"], ["a", 1, 2], [None, 1, 2], [[1], 2, 3], [1.0, 2.0], 3],
        ids=repr,
    )
    def test_labels_that_are_objects(self, members, classes):
        del members["classes.npy"]
        refused(zipped(with_header(members, lambda header: header.update(classes=classes))))

    def test_both_kinds_of_labels_or_none(self, members):
        refused(zipped(with_header(members, lambda header: header.update(classes=["a", "b", "c"]))))
        del members["classes.npy"]
        refused(zipped(members), "classes")


def test_the_error_names_the_file(tmp_path):
    (tmp_path / "some.npz").write_bytes(b"no model")
    with pytest.raises(ValueError, match=f"some.npz {HOSTILE}: File is not a zip file"):
        FastSoftmax.load(tmp_path / "some.npz")
