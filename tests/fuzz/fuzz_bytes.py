"""Sound files with something wrong in them."""

import io
import struct
import zipfile

from hypothesis import strategies as st

_WORDS = [0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1]
_TEXTS = [b"NaN", b"1e999", b"-1", b"null", b"true", b"[]", b"{}", b'"', b"(", b")", b",", b"'",
          b"99999999999999999999", b"<f8", b"|O", b">f4", b"|V8", b"<U9", b"\\u0000",
          b"descr"]  # fmt: skip


@st.composite
def broken(draw, sound, most=4):
    """Draw what a few changes make of bytes."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, most))):
        if not data:
            return bytes(data)
        at = draw(st.integers(0, len(data) - 1))
        # most structure is at the begin and at the end
        at = draw(st.sampled_from([at, at % 128, len(data) - 1 - at % 128])) % len(data)
        kind = draw(st.sampled_from(["bit", "byte", "word", "text", "cut", "remove", "again"]))
        if kind == "bit":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte":
            data[at] = draw(st.integers(0, 255))
        elif kind == "word":
            size = draw(st.sampled_from([2, 4, 8]))
            word = draw(st.sampled_from(_WORDS)) % 2 ** (8 * size)
            order = draw(st.sampled_from(["<", ">"]))
            data[at : at + size] = struct.pack(order + {2: "H", 4: "I", 8: "Q"}[size], word)
        elif kind == "text":
            text = draw(st.sampled_from(_TEXTS))
            data[at : at + draw(st.sampled_from([0, len(text), 1]))] = text
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + draw(st.integers(1, 64))]
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
    return bytes(data)


@st.composite
def broken_archives(draw, sound):
    """Draw a zip archive that is broken as a file, or sound with broken members."""
    if draw(st.integers(0, 2)) == 0:
        return draw(broken(sound))
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw(st.sampled_from(sorted(members)))
    kind = draw(st.sampled_from(["broken", "broken", "broken", "lost", "named", "exchanged"]))
    if kind == "broken":
        members[name] = draw(broken(members[name]))
    elif kind == "lost":
        del members[name]
    elif kind == "named":
        members[draw(st.sampled_from(["x.npy", "velocity.npy", "columns.npy", "../x.npy"]))] = (
            members.pop(name)
        )
    else:
        members[name] = members[draw(st.sampled_from(sorted(members)))]
    packed = io.BytesIO()
    how = draw(st.sampled_from([zipfile.ZIP_STORED] * 3 + [zipfile.ZIP_DEFLATED]))
    with zipfile.ZipFile(packed, "w", how) as archive:
        for key, value in members.items():
            archive.writestr(key, value)
    return packed.getvalue()
