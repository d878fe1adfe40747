"""Data sets: files made here, the packaged sample, a server on 127.0.0.1.

Tests on larger real data read the folder that FASTSOFTMAX_TEST_DATA names (``fashion/*.gz``).
"""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import socket
import struct
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fastsoftmax import datasets
from fastsoftmax.datasets import (
    FASHION_MNIST_LABELS,
    load_fashion_mnist,
    load_fashion_mnist_sample,
)

TRAIN = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
TEST = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")


def idx(array):
    """Bytes of an IDX file."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def pack(raw):
    return gzip.compress(raw, mtime=0)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (7, 28, 28), dtype=np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(20170828)


@pytest.fixture
def labels():
    return np.array([9, 0, 3, 1, 2, 2, 9], dtype=np.uint8)


@pytest.fixture
def home(tmp_path, images, labels):
    """A folder with the four official names; the test set is the training set backwards."""
    folder = tmp_path / "home"
    folder.mkdir()
    for names, step in ((TRAIN, 1), (TEST, -1)):
        (folder / names[0]).write_bytes(pack(idx(images[::step])))
        (folder / names[1]).write_bytes(pack(idx(labels[::step])))
    return folder


class TestRead:
    def test_rows_pixels_and_labels(self, home, images, labels):
        for subset, step in (("train", 1), ("test", -1)):
            X, y = load_fashion_mnist(home, subset)
            assert X.dtype == np.uint8
            assert X.flags.c_contiguous
            assert X.flags.writeable
            assert y.dtype == np.int64
            np.testing.assert_array_equal(X, images[::step].reshape(7, 784))
            np.testing.assert_array_equal(y, labels[::step])

    @pytest.mark.parametrize("layout", ["home", "FashionMNIST/raw"])
    @pytest.mark.parametrize("gzipped", [True, False])
    def test_layouts(self, home, tmp_path, images, layout, gzipped):
        folder = tmp_path / "root" / layout
        folder.mkdir(parents=True)
        for name in (*TRAIN, *TEST):
            data = (home / name).read_bytes()
            if gzipped:
                (folder / name).write_bytes(data)
            else:
                (folder / name.removesuffix(".gz")).write_bytes(gzip.decompress(data))
        root = folder if layout == "home" else tmp_path / "root"
        X, _ = load_fashion_mnist(str(root))
        np.testing.assert_array_equal(X, images.reshape(7, 784))

    def test_a_browser_may_have_unpacked_the_file_and_kept_its_name(self, home, images):
        (home / TRAIN[0]).write_bytes(idx(images))
        X, _ = load_fashion_mnist(home)
        np.testing.assert_array_equal(X, images.reshape(7, 784))

    def test_images_and_labels_come_from_one_folder(self, home, images):
        raw = home / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for name in TRAIN:
            (raw / name).write_bytes((home / name).read_bytes())
        (home / TRAIN[0]).write_bytes(pack(idx(images[:2])))
        (home / TRAIN[1]).unlink()
        assert load_fashion_mnist(home)[0].shape == (7, 784)

    def test_no_rows(self, home, images, labels):
        (home / TRAIN[0]).write_bytes(pack(idx(images[:0])))
        (home / TRAIN[1]).write_bytes(pack(idx(labels[:0])))
        X, y = load_fashion_mnist(home)
        assert X.shape == (0, 784)
        assert y.shape == (0,)

    def test_more_than_one_chunk(self, home, rng):
        images = rng.integers(0, 256, (1500, 28, 28), dtype=np.uint8)
        (home / TRAIN[0]).write_bytes(pack(idx(images)))
        (home / TRAIN[1]).write_bytes(pack(idx(np.zeros(1500))))
        np.testing.assert_array_equal(load_fashion_mnist(home)[0], images.reshape(1500, 784))

    def test_default_home(self, home, tmp_path, monkeypatch):
        monkeypatch.setenv("FASTSOFTMAX_DATA", str(home))
        assert load_fashion_mnist()[0].shape == (7, 784)
        monkeypatch.delenv("FASTSOFTMAX_DATA")
        cache = tmp_path / "cache" / "fastsoftmax"
        cache.mkdir(parents=True)
        home.rename(cache / "fashion-mnist")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert load_fashion_mnist()[0].shape == (7, 784)
        monkeypatch.delenv("XDG_CACHE_HOME")
        (tmp_path / "cache").rename(tmp_path / ".cache")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        assert load_fashion_mnist()[0].shape == (7, 784)
        assert load_fashion_mnist("~/.cache/fastsoftmax/fashion-mnist")[0].shape == (7, 784)

    def test_bunch(self, home, images, labels):
        bunch = load_fashion_mnist(home, return_X_y=False)
        np.testing.assert_array_equal(bunch.data, images.reshape(7, 784))
        np.testing.assert_array_equal(bunch["images"], images)
        np.testing.assert_array_equal(bunch.target, labels)
        assert bunch.target_names[bunch.target][0] == "Ankle boot"
        assert len(bunch.feature_names) == 784
        assert bunch.feature_names[29] == "pixel_1_1"
        assert "MIT" in bunch.DESCR

    @pytest.mark.parametrize("subset", ["t10k", "Train", None, 0])
    def test_subset(self, home, subset):
        with pytest.raises(ValueError, match="subset must be 'train' or 'test'"):
            load_fashion_mnist(home, subset)
        with pytest.raises(ValueError, match="subset must be 'train' or 'test'"):
            load_fashion_mnist_sample(subset)


class TestDamage:
    def test_absent(self, home):
        (home / TRAIN[1]).unlink()
        with pytest.raises(FileNotFoundError) as caught:
            load_fashion_mnist(home)
        for part in (TRAIN[1], str(home), "download=True", "load_fashion_mnist_sample()"):
            assert part in str(caught.value)
        assert TRAIN[0] not in str(caught.value)
        assert load_fashion_mnist(home, "test")[0].shape == (7, 784)

    def test_no_folder_is_made_without_download(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="train-images"):
            load_fashion_mnist(tmp_path / "none")
        assert not (tmp_path / "none").exists()

    @pytest.mark.parametrize("which", [0, 1])
    @pytest.mark.parametrize(
        "damage",
        [
            pytest.param(lambda raw: b"", id="empty"),
            pytest.param(lambda raw: pack(b""), id="empty gzip"),
            pytest.param(lambda raw: b"<!DOCTYPE html><html></html>", id="web page"),
            pytest.param(lambda raw: pack(raw)[:9], id="cut in the gzip header"),
            pytest.param(lambda raw: pack(raw)[:-9], id="cut in the gzip body"),
            pytest.param(lambda raw: pack(raw)[:-3], id="cut in the gzip trailer"),
            pytest.param(lambda raw: pack(raw[:6]), id="cut in the header"),
            pytest.param(lambda raw: pack(raw[:-1]), id="a byte short"),
            pytest.param(lambda raw: raw[:-1], id="a byte short, not gzipped"),
            pytest.param(lambda raw: pack(raw + b"\0"), id="a byte long"),
            pytest.param(lambda raw: raw + b"\0", id="a byte long, not gzipped"),
            pytest.param(lambda raw: pack(raw) + b"tail", id="bytes after the gzip stream"),
            pytest.param(lambda raw: pack(b"\0\0\x09" + raw[3:]), id="int8"),
            pytest.param(lambda raw: pack(raw[:3] + b"\x02" + raw[4:]), id="two dimensions"),
            pytest.param(lambda raw: pack(raw[::-1]), id="backwards"),
        ],
    )
    def test_file_is_named_with_a_remedy(self, home, which, damage):
        path = home / TRAIN[which]
        path.write_bytes(damage(gzip.decompress(path.read_bytes())))
        with pytest.raises(ValueError, match="truncated or corrupt") as caught:
            load_fashion_mnist(home)
        assert str(path) in str(caught.value)
        assert "download=True" in str(caught.value)

    def test_flipped_bits(self, home, labels):
        """A damaged bit past the gzip header is noticed, or is padding and changes no label."""
        path = home / TRAIN[1]
        data = path.read_bytes()
        n_noticed = 0
        for bit in range(8 * 10, 8 * len(data)):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            try:
                _, y = load_fashion_mnist(home)
            except ValueError as error:
                assert str(path) in str(error)
                n_noticed += 1
            else:
                np.testing.assert_array_equal(y, labels)
        assert n_noticed >= 8 * (len(data) - 10) - 7

    def test_remedy_names_the_official_file(self, home):
        plain = home / TRAIN[0].removesuffix(".gz")
        (home / TRAIN[0]).unlink()
        plain.write_bytes(b"")
        with pytest.raises(ValueError, match=rf"official file {TRAIN[0]} from http"):
            load_fashion_mnist(home)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((7, 14, 14), "14 x 14 pixels, not 28 x 28"),
            ((60_001, 28, 28), "60001 rows"),
            ((2**32 - 1, 28, 28), "4294967295 rows"),
            ((7, 2**32 - 1, 2**32 - 1), "pixels, not 28 x 28"),
        ],
    )
    def test_size_is_refused_before_memory_is_taken(self, home, shape, message):
        header = struct.pack(">BBBB3I", 0, 0, 8, 3, *shape)
        (home / TRAIN[0]).write_bytes(pack(header + bytes(1000)))
        with pytest.raises(ValueError, match=message):
            load_fashion_mnist(home)

    def test_small_file_that_unpacks_to_much(self, home, images):
        (home / TRAIN[0]).write_bytes(pack(idx(images) + bytes(1 << 26)))
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match="more follow"):
                load_fashion_mnist(home)
            assert tracemalloc.get_traced_memory()[1] < 1 << 23
        finally:
            tracemalloc.stop()

    def test_label_out_of_range(self, home, labels):
        labels[4] = 10
        (home / TRAIN[1]).write_bytes(pack(idx(labels)))
        with pytest.raises(ValueError, match=r"train-labels.*label 10 at row 4"):
            load_fashion_mnist(home)

    def test_counts_differ(self, home, labels):
        (home / TRAIN[1]).write_bytes(pack(idx(labels[:-1])))
        with pytest.raises(ValueError, match=r"7 images and .*train-labels.* 6 labels"):
            load_fashion_mnist(home)

    @pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file"
    )
    def test_no_permission(self, home):
        (home / TRAIN[0]).chmod(0)
        with pytest.raises(PermissionError, match="train-images"):
            load_fashion_mnist(home)


class Server:
    """Serves the files of a dict by path on 127.0.0.1, 404 for others; counts requests."""

    def __init__(self):
        self.files = {}
        self.requests = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append(self.path)
                data, n_promised = server.files.get(self.path, (None, 0))
                if data is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(n_promised))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/"
        self.thread = threading.Thread(target=self.httpd.serve_forever, args=(0.01,))
        self.thread.start()

    def put(self, path, data, n_promised=None):
        self.files[path] = (data, len(data) if n_promised is None else n_promised)

    def close(self):
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()


@pytest.fixture
def server(home, monkeypatch):
    """Two addresses, /first/ and /mirror/, and the checksums of the files in `home`."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    monkeypatch.setattr(datasets, "_BASE_URLS", (server.url + "first/", server.url + "mirror/"))
    md5 = {name: hashlib.md5((home / name).read_bytes()).hexdigest() for name in (*TRAIN, *TEST)}
    monkeypatch.setattr(datasets, "_MD5", md5)
    yield server
    server.close()


class TestDownload:
    def test_only_when_asked_and_once(self, server, home, tmp_path, images):
        for name in (*TRAIN, *TEST):
            server.put(f"/first/{name}", (home / name).read_bytes())
        cache = tmp_path / "new" / "cache"
        with pytest.raises(FileNotFoundError):
            load_fashion_mnist(cache)
        assert server.requests == []
        X, _ = load_fashion_mnist(cache, download=True)
        np.testing.assert_array_equal(X, images.reshape(7, 784))
        assert server.requests == [f"/first/{name}" for name in TRAIN]
        assert sorted(path.name for path in cache.iterdir()) == sorted(TRAIN)
        load_fashion_mnist(cache, download=True)
        load_fashion_mnist(cache)
        assert len(server.requests) == 2

    def test_only_the_absent_file(self, server, home):
        server.put(f"/first/{TRAIN[1]}", (home / TRAIN[1]).read_bytes())
        (home / TRAIN[1]).unlink()
        assert load_fashion_mnist(home, download=True)[0].shape == (7, 784)
        assert server.requests == [f"/first/{TRAIN[1]}"]

    def test_present_files_are_left_alone(self, server, home, images):
        """Files with fewer rows than the official ones have another checksum and are legal."""
        (home / TRAIN[0]).write_bytes(pack(idx(images[:2])))
        (home / TRAIN[1]).write_bytes(pack(idx(np.zeros(2))))
        assert load_fashion_mnist(home, download=True)[0].shape == (2, 784)
        assert server.requests == []

    @pytest.mark.parametrize("fault", ["absent", "wrong", "cut", "broken off", "too long"])
    def test_the_mirror_is_next(self, server, home, tmp_path, fault, monkeypatch):
        for name in TRAIN:
            data = (home / name).read_bytes()
            server.put(f"/mirror/{name}", data)
            if fault == "wrong":
                server.put(f"/first/{name}", pack(b"another file"))
            elif fault == "cut":
                server.put(f"/first/{name}", data[:-1])
            elif fault == "broken off":
                server.put(f"/first/{name}", data[:-1], n_promised=len(data))
            elif fault == "too long":
                monkeypatch.setattr(datasets, "_MAX_DOWNLOAD_BYTES", 1 << 16)
                server.put(f"/first/{name}", bytes(1 << 17))
        assert load_fashion_mnist(tmp_path / "cache", download=True)[0].shape == (7, 784)
        assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted(TRAIN)

    def test_every_address_fails(self, server, home, tmp_path):
        server.put(f"/first/{TRAIN[0]}", b"not the file")
        cache = tmp_path / "cache"
        with pytest.raises(OSError, match="Could not download") as caught:
            load_fashion_mnist(cache, download=True)
        message = str(caught.value)
        for part in (TRAIN[0], str(cache), "MD5", "404", server.url, "by hand"):
            assert part in message
        assert list(cache.iterdir()) == []

    def test_silent_server(self, server, tmp_path, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            monkeypatch.setattr(datasets, "_BASE_URLS", (url,))
            monkeypatch.setattr(datasets, "_TIMEOUT_SECONDS", 0.05)
            with pytest.raises(OSError, match="timed out"):
                load_fashion_mnist(tmp_path / "cache", download=True)
        assert list((tmp_path / "cache").iterdir()) == []

    def test_not_http(self, server, tmp_path, monkeypatch):
        """http.client raises errors that are no OSError, such as BadStatusLine."""

        def answer(listener):
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"nonsense\r\n\r\n")

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=answer, args=(listener,))
            thread.start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            monkeypatch.setattr(datasets, "_BASE_URLS", (url,))
            with pytest.raises(OSError, match="nonsense"):
                load_fashion_mnist(tmp_path / "cache", download=True)
            thread.join()

    def test_interrupt_leaves_nothing(self, server, tmp_path, monkeypatch):
        class Response:
            def __init__(self):
                self.blocks = [b"half"]

            def __enter__(self):
                return self

            def __exit__(self, *args):
                return None

            def read(self, n_bytes):
                if not self.blocks:
                    raise KeyboardInterrupt
                return self.blocks.pop()

        seen = []

        def urlopen(url, timeout):
            seen.append((url, timeout))
            return Response()

        monkeypatch.setattr("urllib.request.urlopen", urlopen)
        with pytest.raises(KeyboardInterrupt):
            load_fashion_mnist(tmp_path / "cache", download=True)
        assert seen == [(server.url + "first/" + TRAIN[0], datasets._TIMEOUT_SECONDS)]
        assert list((tmp_path / "cache").iterdir()) == []

    def test_official_addresses_and_checksums(self):
        assert all(url.endswith("/") for url in datasets._BASE_URLS)
        assert set(datasets._MD5) == {*TRAIN, *TEST}
        assert all(len(bytes.fromhex(md5)) == 16 for md5 in datasets._MD5.values())


class TestResize:
    @pytest.mark.parametrize("size", [1, 2, 7, 14, 27, 29, 56, 64, (28, 14), (3, 50), (64, 28)])
    def test_close_to_pillow(self, home, images, size):
        image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
        height, width = (size, size) if isinstance(size, int) else size
        X, y = load_fashion_mnist(home, resize=size)
        assert X.shape == (7, height * width)
        assert X.dtype == np.uint8
        assert y.shape == (7,)
        for ours, original in zip(X.reshape(7, height, width), images, strict=True):
            pillow = image.fromarray(original).resize((width, height), image.Resampling.BILINEAR)
            assert np.abs(ours.astype(int) - np.asarray(pillow)).max() <= 1

    def test_same_size(self, home, images):
        for size in (28, (28, 28), np.int64(28), [28, 28]):
            X, _ = load_fashion_mnist(home, resize=size)
            np.testing.assert_array_equal(X, images.reshape(7, 784))

    @pytest.mark.parametrize("grey", [0, 1, 254, 255])
    @pytest.mark.parametrize("size", [3, 11, 64])
    def test_flat_images_stay(self, grey, size):
        flat = np.full((2, 28, 28), grey, dtype=np.uint8)
        assert (datasets._resize_images(flat, size, size) == grey).all()

    def test_halving_by_hand(self):
        """From 4 pixels to 2 the triangles weigh 3, 3, 1 and 1, 3, 3 parts of 7 (ends cut off)."""
        row = np.array([[[0, 70, 140, 210]]], dtype=np.uint8)
        expected = [(3 * 0 + 3 * 70 + 140) / 7, (70 + 3 * 140 + 3 * 210) / 7]
        np.testing.assert_array_equal(datasets._resize_images(row, 1, 2)[0, 0], expected)

    def test_doubling_by_hand(self):
        row = np.array([[[0, 100]]], dtype=np.uint8)
        np.testing.assert_array_equal(datasets._resize_images(row, 1, 4)[0, 0], [0, 25, 75, 100])

    def test_blocks_of_images(self, rng):
        images = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
        together = datasets._resize_images(images, 96, 96)
        for image, resized in zip(images, together, strict=True):
            np.testing.assert_array_equal(datasets._resize_images(image[None], 96, 96)[0], resized)

    def test_no_images(self, images):
        assert datasets._resize_images(images[:0], 5, 6).shape == (0, 5, 6)

    def test_bunch(self, home):
        bunch = load_fashion_mnist(home, resize=(4, 6), return_X_y=False)
        assert bunch.images.shape == (7, 4, 6)
        assert bunch.feature_names[-1] == "pixel_3_5"

    @pytest.mark.parametrize("size", [0, -1, (0, 5), (1, 2, 3), ()])
    def test_bad_value(self, home, size):
        with pytest.raises(ValueError, match="resize must be"):
            load_fashion_mnist(home, resize=size)

    @pytest.mark.parametrize("size", [2.0, "64", True, (28, None), np.array([2, 3])])
    def test_bad_type(self, home, size):
        with pytest.raises(TypeError, match="resize must be an integer"):
            load_fashion_mnist(home, resize=size)


class TestSample:
    @pytest.mark.parametrize(("subset", "n", "fewest"), [("train", 1000, 80), ("test", 500, 30)])
    def test_contents(self, subset, n, fewest):
        X, y = load_fashion_mnist_sample(subset)
        assert X.shape == (n, 784)
        assert X.dtype == np.uint8
        assert y.dtype == np.int64
        assert X.min() == 0
        assert X.max() == 255
        assert np.bincount(y, minlength=10).min() >= fewest
        first = [9, 0, 0, 3, 0] if subset == "train" else [9, 2, 1, 1, 6]
        assert y[:5].tolist() == first

    def test_is_the_beginning_of_the_real_data(self):
        folder = os.environ.get("FASTSOFTMAX_TEST_DATA")
        if not folder:
            pytest.skip("FASTSOFTMAX_TEST_DATA names no folder with real data")
        for subset in ("train", "test"):
            X, y = load_fashion_mnist(Path(folder) / "fashion", subset)
            X_sample, y_sample = load_fashion_mnist_sample(subset)
            assert X.shape[0] >= X_sample.shape[0]
            np.testing.assert_array_equal(X[: len(X_sample)], X_sample)
            np.testing.assert_array_equal(y[: len(y_sample)], y_sample)

    def test_bunch(self):
        bunch = load_fashion_mnist_sample("test", return_X_y=False)
        assert bunch.images.shape == (500, 28, 28)
        assert bunch.target_names.tolist() == list(FASHION_MNIST_LABELS)

    def test_each_call_gives_arrays_of_its_own(self):
        load_fashion_mnist_sample()[0][:] = 7
        assert load_fashion_mnist_sample()[0].min() == 0

    def test_licence_lies_beside_it(self):
        folder = Path(datasets.__file__).parent / "data" / "fashion_mnist_sample"
        text = (folder / "LICENSE").read_text(encoding="utf-8")
        assert "Copyright (c) 2017 Zalando SE" in text
        assert "Permission is hereby granted, free of charge" in text
        assert 'THE SOFTWARE IS PROVIDED "AS IS"' in text

    def test_labels(self):
        assert len(set(FASHION_MNIST_LABELS)) == 10
        assert FASHION_MNIST_LABELS[0] == "T-shirt/top"
