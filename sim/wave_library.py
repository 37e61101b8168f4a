"""The two compression functions that Verilator's wave writer asks of lz4 and zlib.

With them a build with waves needs no development packages of those libraries. The LZ4 side
compresses (greedy matches, the block format of lz4_Block_format.md); the zlib side returns its
input, which the FST format allows: the writer stores whatever is not smaller when compressed.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["WAVE_FOLDER", "write_wave_library"]

WAVE_FOLDER = "waves"
"""Name of the folder beside a build's objects."""

_LZ4 = r"""// LZ4 block compression, greedy.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

inline uint8_t* lz4_length(uint8_t* out, int rest) {
    for (; rest >= 255; rest -= 255) *out++ = 255;
    *out++ = static_cast<uint8_t>(rest);
    return out;
}

// Literals, then a match of `match` bytes at `distance`; match 0 ends the block.
inline uint8_t* lz4_sequence(uint8_t* out, const uint8_t* from, int literals, int match,
                             int distance) {
    const int extra = match ? match - 4 : 0;
    *out++ = static_cast<uint8_t>((literals < 15 ? literals : 15) << 4 | (extra < 15 ? extra : 15));
    if (literals >= 15) out = lz4_length(out, literals - 15);
    std::memcpy(out, from, literals);
    out += literals;
    if (!match) return out;
    *out++ = static_cast<uint8_t>(distance);
    *out++ = static_cast<uint8_t>(distance >> 8);
    return extra >= 15 ? lz4_length(out, extra - 15) : out;
}

inline int LZ4_compress_default(const char* source, char* target, int size, int) {
    const uint8_t* in = reinterpret_cast<const uint8_t*>(source);
    uint8_t* out = reinterpret_cast<uint8_t*>(target);
    std::vector<int> seen(1 << 13, -1);
    int done = 0, at = 0;
    // The format wants 5 literals at the end and no match that starts in the last 12 bytes.
    while (at + 12 < size) {
        uint32_t word;
        std::memcpy(&word, in + at, 4);
        int& entry = seen[(word * 2654435761u) >> 19];
        const int before = entry;
        entry = at;
        if (before < 0 || at - before > 65535 || std::memcmp(in + before, in + at, 4)) {
            ++at;
            continue;
        }
        int match = 4;
        while (at + match < size - 5 && in[before + match] == in[at + match]) ++match;
        out = lz4_sequence(out, in + done, at - done, match, at - before);
        at += match;
        done = at;
    }
    out = lz4_sequence(out, in + done, size - done, 0, 0);
    return static_cast<int>(out - reinterpret_cast<uint8_t*>(target));
}
"""

_ZLIB = r"""// compress2 that does not compress.
#pragma once
#include <cstring>

using Bytef = unsigned char;
using uLong = unsigned long;
using uLongf = unsigned long;
constexpr int Z_OK = 0;

inline uLong compressBound(uLong size) { return size; }

inline int compress2(Bytef* target, uLongf* target_size, const Bytef* source, uLong size, int) {
    if (size) std::memcpy(target, source, size);
    *target_size = size;
    return Z_OK;
}
"""

_EMPTY_ARCHIVE = b"!<arch>\n"


def write_wave_library(build_folder: Path) -> None:
    """Write headers, and archives with nothing in them for the linker, below ``build_folder``."""
    folder = build_folder / WAVE_FOLDER
    folder.mkdir()
    (folder / "lz4.h").write_text(_LZ4)
    (folder / "zlib.h").write_text(_ZLIB)
    for name in ("lz4", "z"):
        (folder / f"lib{name}.a").write_bytes(_EMPTY_ARCHIVE)
