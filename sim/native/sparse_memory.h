// Bytes at 64-bit addresses, in pages that exist once something is written to them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <unordered_map>

class SparseMemory {
  public:
    // What a byte reads as that nothing ever wrote.
    static constexpr uint8_t UNWRITTEN = 0xA5;

    uint64_t unwritten_bytes = 0;
    uint64_t first_unwritten = 0;

    void write(uint64_t address, const uint8_t* data, size_t length) {
        while (length) {
            const size_t offset = address % PAGE_BYTES;
            const size_t part = std::min(length, PAGE_BYTES - offset);
            Page& page = make_page(address / PAGE_BYTES);
            std::memcpy(page.bytes + offset, data, part);
            for (size_t at = offset; at < offset + part; ++at) page.mark(at);
            address += part;
            data += part;
            length -= part;
        }
    }

    void write_byte(uint64_t address, uint8_t value) {
        Page& page = make_page(address / PAGE_BYTES);
        page.bytes[address % PAGE_BYTES] = value;
        page.mark(address % PAGE_BYTES);
    }

    // One beat: aligned, at most 64 bytes. Counts the bytes that nothing ever wrote.
    void read_beat(uint64_t address, uint8_t* data, size_t length) {
        const size_t offset = address % PAGE_BYTES;
        const uint64_t wanted = length == 64 ? ~uint64_t{0} : (uint64_t{1} << length) - 1;
        const Page* page = find_page(address / PAGE_BYTES);
        const uint64_t there = page ? page->written[offset / 64] >> (offset % 64) : 0;
        const uint64_t missing = wanted & ~there;
        if (missing) {
            if (!unwritten_bytes) first_unwritten = address + __builtin_ctzll(missing);
            unwritten_bytes += __builtin_popcountll(missing);
        }
        read(address, data, length);
    }

    void read(uint64_t address, uint8_t* data, size_t length) {
        while (length) {
            const size_t offset = address % PAGE_BYTES;
            const size_t part = std::min(length, PAGE_BYTES - offset);
            const Page* page = find_page(address / PAGE_BYTES);
            if (page) {
                std::memcpy(data, page->bytes + offset, part);
            } else {
                std::memset(data, UNWRITTEN, part);
            }
            address += part;
            data += part;
            length -= part;
        }
    }

  private:
    static constexpr size_t PAGE_BYTES = 4096;

    struct Page {
        uint8_t bytes[PAGE_BYTES];
        uint64_t written[PAGE_BYTES / 64] = {};

        Page() { std::memset(bytes, UNWRITTEN, PAGE_BYTES); }
        void mark(size_t at) { written[at / 64] |= uint64_t{1} << (at % 64); }
    };

    // Streams stay on a page for many beats: the last one found is remembered.
    Page* find_page(uint64_t number) {
        if (last_ && number == last_number_) return last_;
        const auto found = pages_.find(number);
        if (found == pages_.end()) return nullptr;
        last_number_ = number;
        return last_ = found->second.get();
    }

    Page& make_page(uint64_t number) {
        if (Page* page = find_page(number)) return *page;
        last_number_ = number;
        last_ = (pages_[number] = std::make_unique<Page>()).get();
        return *last_;
    }

    std::unordered_map<uint64_t, std::unique_ptr<Page>> pages_;
    Page* last_ = nullptr;
    uint64_t last_number_ = 0;
};
