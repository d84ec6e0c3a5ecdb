"""The wire: what is packed comes out again, bit for bit; anything else is refused with the place and the remedy."""

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from holter.errors import FrameError
from holter.frame import Column, Frame, decode, encode
from hypothesis import given, settings
from hypothesis import strategies as st


def frame(**changes) -> Frame:
    base = dict(
        run="r1",
        attempt="a1",
        node="n1",
        boot="b1",
        seq=7,
        sent_ns=123,
        rank=np.array([0, 1, 0], np.int32),
        step=np.array([5, 5, 6]),
        time_ns=np.array([1, 2, 3]),
        metrics={
            "loss": Column(np.array([1.5, np.nan, np.inf], "<f4")),
            "lr": Column(np.array([0.1, 0.0, 0.3]), np.array([True, False, True])),
        },
        events=[{"event": "checkpoint", "rank": None, "step": 6, "time_ns": 4, "attrs": {"seconds": float("nan")}}],
        dropped={"ring_full": 2},
    )
    return Frame(**{**base, **changes})


def test_nan_and_absent_stay_apart():
    got = decode(encode(frame()))
    assert np.isnan(got.metrics["loss"].values[1]) and got.metrics["loss"].present is None
    assert got.metrics["lr"].present.tolist() == [True, False, True]


def test_events_carry_non_finite_numbers_as_strings():
    got = decode(encode(frame()))
    assert got.events[0]["attrs"]["seconds"] == "NaN"
    assert (got.seq, got.dropped, got.rows) == (7, {"ring_full": 2}, 3)


@given(st.binary(max_size=400))
def test_any_bytes_are_decoded_or_refused(data):
    with pytest.raises(FrameError):
        decode(data)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_is_found(position, flip):
    data = bytearray(encode(frame()))
    data[position % len(data)] ^= flip
    with pytest.raises(FrameError):
        decode(bytes(data))


@given(st.binary(max_size=300))
def test_a_hostile_header_with_a_right_checksum_is_refused(header):
    body = struct.pack("<4sI", b"HLT1", len(header)) + header
    with pytest.raises(FrameError):
        decode(body + struct.pack("<I", zlib.crc32(body)))


PIECES = (
    *(',"columns":[]', ',"columns":[', '"columns":null,', '"rows":2,', '"a,', '"x":1', "\\", '"', ":", ",", " ", "\u00e9", "\U0001f600"),
    *("{", "}", "[", "]"),
)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 12), st.sampled_from(PIECES)), max_size=4))
def test_columns_that_are_remembered_say_what_columns_that_are_read_say(cuts):
    """The list of columns is looked up where it stands as `encode` writes it. A space before it makes the same header take the long way."""
    data = encode(frame())
    start = 8 + struct.unpack_from("<I", data, 4)[0]
    text = data[8:start].decode()
    for place, length, piece in cuts:
        at = place % (len(text) + 1)
        text = text[:at] + piece + text[at + length :]
    assert said(text, data[start:-4]) == said(text.replace(',"columns":[', ', "columns":['), data[start:-4])


HEAD = '{"run":"r","attempt":"a","node":"n","boot":"b","sent_ns":1,"rows":2,"seq":1'
KEYS = ',"columns":[{"name":"rank","dtype":"<i4"},{"name":"step","dtype":"<i8"},{"name":"time_ns","dtype":"<i8"}]'


def test_a_header_of_known_columns_is_read():
    assert said(HEAD + KEYS + "}", bytes(40)) is not None


@pytest.mark.parametrize(
    "header",
    [
        HEAD + KEYS + "0}",
        HEAD + KEYS + ',"columns":null}',
        HEAD + ',"dropped":{"a":1' + KEYS + "}}",
        HEAD + ',"events":[{"event":"e"' + KEYS + "}]}",
        HEAD + ',"x":[1' + KEYS + ',"y"]}',
        "[1" + KEYS + ',"x"]',
        '"' + KEYS + ',"',
    ],
)
def test_columns_in_the_wrong_place_are_no_columns(header):
    """Cut out, each of these would be a header."""
    assert said(header, bytes(40)) is None


def said(header: str, columns: bytes) -> object:
    """What a frame of these says; None if it is refused (where there are two reasons, either may be named)."""
    text = header.encode()
    body = b"HLT1" + struct.pack("<I", len(text)) + text + columns
    try:
        read = decode(body + struct.pack("<I", zlib.crc32(body)))
    except FrameError:
        return None
    return replace(read, rank=None, step=None, time_ns=None, metrics=None, layout=None), read.layout.keys, dict(read.layout.metrics)


@given(st.lists(st.floats(width=64), max_size=50), st.data())
def test_round_trip_is_bit_exact(values, data):
    present = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))), bool)
    n = len(values)
    sent = frame(
        rank=np.zeros(n, np.int32), step=np.arange(n), time_ns=np.arange(n), metrics={"x": Column(np.array(values, "<f8"), present)}
    )
    got = decode(encode(sent)).metrics["x"]
    assert got.values.tobytes() == np.array(values, "<f8").tobytes()
    assert (np.ones(n, bool) if got.present is None else got.present).tolist() == present.tolist()
