"""The volume cache: what is read is what was preprocessed, whatever happens to the files."""

import multiprocessing
import os
import pickle
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
from detectron2.config import get_cfg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lens_d2.config import add_lens_config
from lens_d2.data import cache as cache_module
from lens_d2.data.cache import PreprocessParams, VolumeCache, build_cache
from lens_d2.data.preprocess import cache_slices
from lens_d2.data.volume import read_volume
from lens_d2.io.errors import DataError

SLICES = 7


def ct_picture(rng, size: int, noise: float, sharpness: float) -> np.ndarray:
    """(size, size) HU of a chest-like slice with the noise of a scanner."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    picture = np.full((size, size), -1000.0)
    for hu, left, top, width, height in [
        (-100, 0, 0, 0.42, 0.33),
        (50, 0, 0, 0.40, 0.31),
        (-850, -0.18, 0, 0.14, 0.2),
        (-850, 0.18, 0, 0.14, 0.2),
        (500, 0, 0.22, 0.05, 0.05),
    ]:
        picture[((x - left) / width) ** 2 + ((y - top) / height) ** 2 < 1] = hu
    grain = cv2.GaussianBlur(rng.normal(size=picture.shape), (0, 0), sharpness)
    return np.clip(np.rint(picture + noise * grain / grain.std()), -1024, 3071).astype(np.int32)


def write_folder(
    folder: Path, size: int = 64, noise: float = 12, sharpness: float = 0.7, slices: int = SLICES
) -> dict:
    """PNG slices and their record, with annotations that the cache is to ignore."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(slices):
        picture = (ct_picture(rng, size, noise, sharpness) + 32768).astype(np.uint16)
        cv2.imwrite(str(folder / f"{number + 5:03d}.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return {
        "file_name": str(folder),
        "volume": f"{folder.name}_005-{slices + 4:03d}",
        "first_slice": 5,
        "num_slices": slices,
        "spacing": [0.8, 0.8, 5.0],
        "z_direction": -1,
        "lesions": [{"id": "1"}],
    }


@pytest.fixture
def record(tmp_path) -> dict:
    return write_folder(tmp_path / "000001_01_01")


@pytest.fixture
def cache(tmp_path) -> VolumeCache:
    return VolumeCache(tmp_path / "cache")


def expected_slices(cache, record) -> np.ndarray:
    geometry = cache.open(record).geometry
    return np.stack(list(cache_slices(read_volume(record), geometry, cache.params.hu_range)))


def all_slices(volume) -> np.ndarray:
    return volume.read(np.arange(volume.shape[0]))


# What is read


def test_native_slices_are_exact(cache, record):
    volume, expected = cache.open(record), expected_slices(cache, record)
    assert volume.shape == expected.shape == volume.geometry.cache_shape
    read = all_slices(volume)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, expected)
    np.testing.assert_array_equal(volume.read([3, 3, 0]), expected[[3, 3, 0]])
    assert volume.read([]).shape == (0, *volume.shape[1:])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(positions=st.lists(st.floats(-3, SLICES + 3), min_size=1, max_size=12))
def test_between_slices_is_linear_and_beyond_the_ends_constant(cache, record, positions):
    volume, expected = cache.open(record), expected_slices(cache, record)
    read = volume.read(np.array(positions))
    for row, column in [(5, 5), (20, 30), (33, 17)]:
        reference = np.interp(positions, np.arange(SLICES), expected[:, row, column])
        np.testing.assert_allclose(read[:, row, column], reference, atol=1e-2)


def test_feet_first_file_is_turned(cache, record):
    """z_direction is -1: the first PNG is the topmost slice and so the last of the cache frame."""
    first = cv2.imread(f"{record['file_name']}/005.png", cv2.IMREAD_UNCHANGED).astype(np.int32) - 32768
    volume = cache.open(record)
    x1, y1, x2, y2 = volume.geometry.crop
    np.testing.assert_array_equal(volume.read([SLICES - 1])[0], first[y1:y2, x1:x2])


def test_only_the_slices_needed_are_decoded_and_each_once(cache, record, monkeypatch):
    volume, decoded = cache.open(record), []
    unpack = cache_module._OpenFile._unpack
    monkeypatch.setattr(cache_module._OpenFile, "_unpack", lambda file, z: decoded.append(z) or unpack(file, z))
    volume.read([1.2, 1.6, 2.0, 2.4, 2.4])
    assert sorted(decoded) == [1, 2, 3]


def test_path_alone_is_enough_for_a_file_with_a_header(cache, shared_dir):
    volume = cache.open(shared_dir / "ct" / "torso_3mm_30_slices.nii.gz")
    assert volume.shape[0] == 30 and volume.geometry.slice_interval == pytest.approx(3)
    assert -1024 <= all_slices(volume).min() < -900 and all_slices(volume).max() > 300


@pytest.mark.parametrize("noise, sharpness", [(8, 0.7), (25, 0.1), (60, 0.1)])
@pytest.mark.parametrize("border_hu", [-500, None])
def test_no_larger_than_the_pictures(tmp_path, noise, sharpness, border_hu):
    record = write_folder(tmp_path / "ct", 512, noise, sharpness, slices=3)
    pictures = sum(file.stat().st_size for file in Path(record["file_name"]).iterdir())
    file = VolumeCache(tmp_path / "cache", PreprocessParams(border_hu=border_hu)).build(record)
    assert file.stat().st_size < (0.9 if border_hu is None else 0.6) * pictures


# What files are named by


def test_built_once(cache, record, monkeypatch):
    path = cache.build(record)
    monkeypatch.setattr(cache_module, "read_volume", None)
    assert cache.build(record) == path == cache.open(record).path == cache.path({**record, "lesions": []})
    assert list(cache.root.iterdir()) == [path] and record["volume"] in path.name


@pytest.mark.parametrize(
    "change",
    [
        lambda cache, record: os.utime(f"{record['file_name']}/006.png", ns=(0, 0)),
        lambda cache, record: record.update(num_slices=3),
        lambda cache, record: record.update(spacing=[0.8, 0.8, 2.0]),
        lambda cache, record: setattr(cache, "params", PreprocessParams(pixel_spacing=1.0)),
        lambda cache, record: setattr(cache, "params", PreprocessParams(border_hu=None)),
    ],
)
def test_another_source_or_parameter_is_another_file(cache, record, change):
    before = cache.build(record)
    change(cache, record)
    after = cache.open(record)
    assert after.path != before and before.exists()
    np.testing.assert_array_equal(all_slices(after), expected_slices(cache, record))


def test_changed_voxels_of_a_detached_file_are_seen(tmp_path, cache):
    image = np.full((3, 8, 8), 40, np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(image), str(tmp_path / "ct.mhd"))
    before = cache.build(tmp_path / "ct.mhd")
    (tmp_path / "ct.raw").write_bytes((image + 1).tobytes())
    os.utime(tmp_path / "ct.raw", ns=(1, 1))
    assert cache.build(tmp_path / "ct.mhd") != before
    assert (all_slices(cache.open(tmp_path / "ct.mhd")) == 41).all()


def test_cache_of_a_config(tmp_path, monkeypatch):
    cfg = get_cfg()
    add_lens_config(cfg)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert build_cache(cfg).root == tmp_path / "cache"
    cfg.INPUT.CACHE_DIR, cfg.INPUT.PIXEL_SPACING = str(tmp_path / "elsewhere"), 1.5
    cache = build_cache(cfg)
    assert cache.root == tmp_path / "elsewhere" and cache.params.pixel_spacing == 1.5


# Interruptions, several processes, damage


def interrupted(slices, stop):
    """As cache_slices, but ``stop`` is called after three slices."""

    def give(*args):
        for number, picture in enumerate(slices(*args)):
            if number == 3:
                stop()
            yield picture

    return give


def test_failing_build_leaves_nothing(cache, record, monkeypatch):
    def fail():
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_module, "cache_slices", interrupted(cache_slices, fail))
    with pytest.raises(KeyboardInterrupt):
        cache.open(record)
    assert list(cache.root.iterdir()) == []


def test_killed_build_is_never_read(cache, record, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "cache_slices", interrupted(cache_slices, lambda: os._exit(9)))
        process = multiprocessing.get_context("fork").Process(target=cache.open, args=(record,))
        process.start()
        process.join()
        assert process.exitcode == 9 and not cache.path(record).exists()
    np.testing.assert_array_equal(all_slices(cache.open(record)), expected_slices(cache, record))


def test_bad_source_leaves_nothing(cache, record):
    file = Path(record["file_name"]) / "008.png"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match="008.png"):
        cache.open(record)
    file.unlink()
    file.symlink_to("nowhere.png")
    with pytest.raises(DataError, match="008.png: cannot be read"):
        cache.open(record)
    assert not cache.root.exists() or list(cache.root.iterdir()) == []


def test_full_disk_is_an_error_and_leaves_nothing(cache, record):
    def build(record):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        with pytest.raises(DataError, match="the cache file cannot be written"):
            cache.open(record)

    process = multiprocessing.get_context("fork").Process(target=build, args=(record,))
    process.start()
    process.join()
    assert process.exitcode == 0 and list(cache.root.iterdir()) == []


def test_folder_that_cannot_be_made_is_an_error(tmp_path, record):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="the cache file cannot be written"):
        VolumeCache(tmp_path / "file").open(record)


def test_builders_and_readers_side_by_side(cache, record):
    expected = expected_slices(VolumeCache(cache.root.parent / "other"), record)

    def work(_):
        return all_slices(pickle.loads(pickle.dumps(cache.open(record))))

    with ThreadPoolExecutor(8) as pool:
        for read in pool.map(work, range(24)):
            np.testing.assert_array_equal(read, expected)
    assert list(cache.root.iterdir()) == [cache.path(record)]


def test_one_volume_in_many_threads_and_in_a_process(cache, record):
    volume, expected = cache.open(record), expected_slices(cache, record)
    with ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(read, expected) for read in pool.map(lambda _: all_slices(volume), range(24)))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert all(np.array_equal(read, expected) for read in pool.map(all_slices, [volume] * 4))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_holds_no_file_open(cache, record):
    def mapped():
        return Path("/proc/self/maps").read_text().count(".b2nd") + len(os.listdir("/proc/self/fd"))

    cache.build(record)
    before = mapped()
    volumes = [cache.open(record) for _ in range(20)]
    assert all(all_slices(volume).size for volume in volumes) and mapped() == before


def damage_cases():
    yield "empty", lambda data: b""
    yield "cut off in the middle", lambda data: data[: len(data) // 2]
    yield "last byte lost", lambda data: data[:-1]
    yield "something else", lambda data: b"something else" * 100
    yield "zeros in the middle", lambda data: data[: len(data) // 3] + bytes(4096) + data[len(data) // 3 + 4096 :]
    rng = np.random.default_rng(0)
    for fraction in [0, *rng.uniform(0, 1, 12), 1]:

        def flip(data, fraction=fraction):
            where = int(fraction * (len(data) - 1))
            return data[:where] + bytes([data[where] ^ 0x55]) + data[where + 1 :]

        yield f"one byte at {fraction:.2f}", flip


@pytest.mark.parametrize("when", ["before it is opened", "after it is opened"])
@pytest.mark.parametrize("damage", [pytest.param(damage, id=name) for name, damage in damage_cases()])
def test_damage_is_never_read(cache, record, damage, when):
    expected = expected_slices(cache, record)
    path = cache.path(record)
    volume = cache.open(record)
    path.write_bytes(damage(path.read_bytes()))
    if when == "before it is opened":
        volume = cache.open(record)
    np.testing.assert_array_equal(all_slices(volume), expected)
    np.testing.assert_array_equal(all_slices(cache.open(record)), expected)
    assert volume.geometry == cache.open(record).geometry


def test_damaged_slice_is_rebuilt_with_a_warning(cache, record, caplog):
    path = cache.build(record)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    all_slices(cache.open(record))
    assert "damaged" in caplog.text and str(path) in caplog.text
    caplog.clear()
    all_slices(cache.open(record))
    assert not caplog.text


def test_damage_with_the_source_gone_is_an_error(cache, record):
    volume = cache.open(record)
    volume.path.write_bytes(b"")
    for file in Path(record["file_name"]).iterdir():
        file.unlink()
    with pytest.raises(DataError, match="the folder is empty"):
        volume.read([0])


def test_long_names_are_cut(tmp_path):
    """A file's name has 255 bytes at most, and names that are cut stay apart."""
    record = write_folder(tmp_path / "ct")
    cache = VolumeCache(tmp_path / "cache")
    paths = {cache.build({**record, "volume": "ä" * 200 + end}) for end in "ab"}
    assert len(paths) == 2 and all(path.is_file() for path in paths)
