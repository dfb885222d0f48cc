"""The store: bit-exact, complete or absent, and when damaged an InputError, no more."""

import json
import shutil
import struct
import zlib

import numpy as np
import pytest
from clips import assert_same, make_clip
from hypothesis import given, settings
from hypothesis import strategies as st

from w4d_jax.data import record
from w4d_jax.data.store import StoreSource, write
from w4d_jax.types import InputError


@pytest.mark.parametrize(
    ("frames", "height", "width", "objects"), [(1, 1, 1, 0), (1, 33, 47, 1), (6, 16, 5, 3)]
)
def test_record_is_bit_exact_at_any_size(frames, height, width, objects):
    clip = make_clip(0, frames, height, width, objects=objects)
    assert_same(clip, record.unpack(record.pack(clip)))


def test_arrays_of_a_record_may_be_written_to():
    clip = record.unpack(record.pack(make_clip(0)))
    clip.joints[:] = 0
    clip.views["front"].rgb[:] = 0


def test_store_gives_back_every_clip_in_any_order(tmp_path):
    clips = [make_clip(i, frames=1 + i) for i in range(5)]
    write(tmp_path / "store", clips, label="noise", shard_clips=2)
    source = StoreSource(tmp_path / "store")
    assert len(source) == 5 and source.ids == [c.id for c in clips]
    assert len(list((tmp_path / "store").glob("*.arrayrecord"))) == 3
    for i in (4, 0, np.int64(3), 1, 2):
        assert_same(clips[i], source[i])
    with pytest.raises(IndexError):
        source[5]


class Stops:
    """A source that is killed at clip `at`."""

    def __init__(self, clips, at):
        self.clips, self.at, self.read = clips, at, []

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, i):
        if i == self.at:
            raise KeyboardInterrupt
        self.read.append(i)
        return self.clips[i]


def test_stopped_writer_leaves_no_store_and_is_resumed(tmp_path):
    clips = [make_clip(i) for i in range(5)]
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "store", Stops(clips, at=3), label="noise", shard_clips=2)
    assert not (tmp_path / "store").exists()
    with pytest.raises(InputError, match="cannot read"):
        StoreSource(tmp_path / "store.partial")
    with pytest.raises(InputError, match="of noise, not other; remove"):
        write(tmp_path / "store", clips, label="other")
    again = Stops(clips, at=None)
    write(tmp_path / "store", again, label="noise", shard_clips=2)
    assert again.read == [2, 3, 4]  # the finished shard is not made again
    assert not (tmp_path / "store.partial").exists()
    for i, clip in enumerate(clips):
        assert_same(clip, StoreSource(tmp_path / "store")[i])


def test_write_refuses(tmp_path):
    clip = make_clip(0)
    write(tmp_path / "there", [clip], label="x")
    with pytest.raises(InputError, match="exists already"):
        write(tmp_path / "there", [clip], label="x")
    with pytest.raises(InputError, match="no clips"):
        write(tmp_path / "empty", [], label="x")
    with pytest.raises(InputError, match="clip 1 repeats the id 'noise/0'"):
        write(tmp_path / "twice", [clip, clip], label="x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 0}, "fps 0, need a number > 0"),
        ({"fps": float("nan")}, "fps nan"),
        ({"id": ""}, "needs an id"),
        ({"views": {}}, "0 views"),
        ({"joint_names": ("a",)}, r"joints is float32\[5, 3\], need float32\[5, 1\]"),
        ({"actions": np.zeros((5, 7), np.float32)}, r"actions is float32\[5, 7\], need"),
        ({"joints": np.full((5, 3), np.nan, np.float32)}, "joints holds NaN"),
        ({"meta": {"x": {1, 2}}}, "not plain JSON"),
        ({"meta": {"x": float("inf")}}, "not plain JSON"),
    ],
)  # fmt: skip
def test_a_clip_that_contradicts_itself_is_not_written(change, message):
    with pytest.raises(InputError, match=message):
        record.pack(make_clip(0)._replace(**change))


def test_a_view_that_contradicts_its_camera_is_not_written():
    clip = make_clip(0)
    front = clip.views["front"]
    with pytest.raises(
        InputError, match=r"front depth is float32\[4, 7, 9\], need float32\[5, 7, 9\]"
    ):
        record.pack(clip._replace(views={"front": front._replace(depth=front.depth[1:])}))
    with pytest.raises(InputError, match="depth -1 m, need >= 0"):
        record.pack(
            clip._replace(views={"front": front._replace(depth=front.depth * 0 - 1)})
        )


RECORD = record.pack(make_clip(1, frames=2, height=3, width=4))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_record_is_an_input_error(data):
    damaged = bytearray(RECORD)
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(RECORD) - 1))]
    else:
        for at in data.draw(
            st.lists(
                st.integers(0, len(RECORD) * 8 - 1), min_size=1, max_size=4, unique=True
            )
        ):
            damaged[at // 8] ^= 1 << at % 8
    with pytest.raises(InputError):
        record.unpack(bytes(damaged))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(derandomize=True, max_examples=300, deadline=None)
@given(data=st.data())
def test_a_forged_header_is_an_input_error(data):
    """A right checksum over a wrong header: one value anywhere in it replaced."""
    (length,) = struct.unpack_from("<I", RECORD, 12)
    header = json.loads(RECORD[16 : 16 + length])
    key = data.draw(st.sampled_from(sorted(header)))
    node, where = header, key
    while isinstance(node[where], list | dict) and node[where] and data.draw(st.booleans()):
        node = node[where]
        keys = sorted(node) if isinstance(node, dict) else range(len(node))
        where = data.draw(st.sampled_from(keys))
    node[where] = data.draw(JSON)
    text = json.dumps(header).encode()
    body = struct.pack("<I", len(text)) + text + RECORD[16 + length :]
    forged = RECORD[:8] + struct.pack("<I", zlib.crc32(body)) + body
    try:
        clip = record.unpack(forged)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        record.check(clip)  # another id or meta is another clip, and a sound one


@settings(derandomize=True, max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_shard_is_an_input_error_naming_file_and_clip(
    store, tmp_path_factory, data
):
    good, clips = store
    place = tmp_path_factory.getbasetemp() / "damaged"
    shutil.copytree(good, place, dirs_exist_ok=True)
    file = place / "clips-00000.arrayrecord"
    content = bytearray(file.read_bytes())
    used = len(content.rstrip(b"\0"))
    at = data.draw(st.integers(0, used - 1))
    length = data.draw(st.sampled_from([1, 16, 4096]))
    content[at : at + length] = bytes(b ^ 0x5A for b in content[at : at + length])
    file.write_bytes(content)
    source = StoreSource(place)
    for i, clip in enumerate(clips):
        try:
            assert_same(clip, source[i])
        except InputError as error:
            assert "clips-00000.arrayrecord" in str(
                error
            ) and f"clip {i} ({clip.id})" in str(error)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "good"
    clips = [make_clip(i, frames=2, height=4, width=5) for i in range(3)]
    write(path, clips, label="noise")
    return path, clips


def test_missing_truncated_and_foreign_files(store, tmp_path):
    with pytest.raises(InputError, match="cannot read it"):
        StoreSource(tmp_path / "nowhere")
    place = shutil.copytree(store[0], tmp_path / "copy")
    file = place / "clips-00000.arrayrecord"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    with pytest.raises(
        InputError, match=rf"{file}: {len(content) - 100} bytes, the index says"
    ):
        StoreSource(place)
    file.unlink()
    with pytest.raises(InputError, match="missing"):
        StoreSource(place)
    file.write_bytes(np.random.default_rng(0).bytes(len(content)))
    with pytest.raises(InputError, match="clip 0"):
        StoreSource(place)[0]


INDEX = '{"schema": %d, "source": "x", "shards": [{"file": %s, "bytes": %g, "ids": [%s]}]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not the index"),
        ("[1]", "not the index"),
        ("{}", "not the index"),
        (INDEX % (99, '"a"', 1, '"b"'), "schema 99, this version reads 1"),
        (INDEX % (1, '"../a"', 1, '"b"'), "not the index"),
        (INDEX % (1, "3", 1, '"b"'), "not the index"),
        (INDEX % (1, '"a"', 1.5, '"b"'), "not the index"),
        (INDEX % (1, '"a"', 1, ""), "not the index"),
        ('{"schema": 1, "source": "x", "shards": []}', "not the index"),
    ],
)
def test_a_bad_index_is_an_input_error(tmp_path, text, message):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(InputError, match=message):
        StoreSource(tmp_path)


def test_another_schema_is_named():
    body = RECORD[12:].replace(b'"schema": 1', b'"schema": 9')
    forged = RECORD[:8] + struct.pack("<I", zlib.crc32(body)) + body
    with pytest.raises(InputError, match="schema 9, this version reads 1"):
        record.unpack(forged)


def test_only_the_views_asked_for_are_read(store):
    path, clips = store
    got = StoreSource(path, views=("wrist",))[1]
    assert_same(clips[1]._replace(views={"wrist": clips[1].views["wrist"]}), got)
    with pytest.raises(InputError, match=r"views \['top'\]: it has \['front', 'wrist'\]"):
        StoreSource(path, views=("top",))[0]
