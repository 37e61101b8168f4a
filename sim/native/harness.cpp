// Runs a script on a Verilated accelerator: clock, memory, host and checks, without Python.
//
// Called in a folder of its own, with `--jitter SEED` and `--waves FILE` or without. Reads
// script.txt; leaves NAME.bin for every step that takes bytes, and outcome.json; keeps
// progress.json up to date. Ends when its parent is gone. The steps are those of script.py, one a
// line, and `memory LATENCY GAP OUTSTANDING`.

#include <unistd.h>

#include <chrono>
#include <cinttypes>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <vector>

#include "Vtop.h"
#include "axi_host.h"
#include "failure.h"
#include "sparse_memory.h"
#include "verilated.h"
#if PORT_BITS
#include "axi_memory.h"
#else
#include "no_memory.h"
#endif
#if VM_TRACE_FST
#include "verilated_fst_c.h"
#endif

namespace {

constexpr uint64_t ANSWER_CYCLES = 10000;  // the longest wait for the register port
constexpr uint64_t LOOK_CYCLES = 1024;     // between two looks at the wall clock
constexpr double PROGRESS_S = 0.25;
constexpr size_t COPY_BYTES = 1 << 16;

double wall_s() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(now).count();
}

std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char letter : text) {
        if (letter == '"' || letter == '\\') out += '\\';
        out += letter < ' ' ? ' ' : letter;
    }
    return out + "\"";
}

void replace_file(const char* name, const std::string& text) {
    const std::string part = std::string(name) + ".part";
    std::ofstream(part) << text;
    std::rename(part.c_str(), name);
}

// The accelerator, its clock, and what hangs on its ports.
class Bench {
    VerilatedContext context_;
    std::unique_ptr<Vtop> model_;
    Vtop& top_;

    // On-chip memories start with zeros; with a seed, with anything.
    Vtop* make(std::optional<uint64_t> seed) {
        context_.randReset(seed ? 2 : 0);
        if (seed) context_.randSeed(static_cast<int>(*seed % INT32_MAX) + 1);
        return new Vtop{&context_};
    }

  public:
    SparseMemory contents;
    AxiMemory memory{top_, contents};
    AxiHost host{top_};
    uint64_t cycle = 0;
    uint32_t status = 0;  // the last STATUS that a wait saw
    bool status_known = false;

    explicit Bench(std::optional<uint64_t> seed) : model_(make(seed)), top_(*model_) {
        started_s_ = looked_s_ = wall_s();
        if (!seed) return;
        memory.jitter(*seed);
        host.jitter.seed(~*seed);
    }

#if VM_TRACE_FST
    void trace(const std::string& file) {
        context_.traceEverOn(true);
        waves_ = std::make_unique<VerilatedFstC>();
        top_.trace(waves_.get(), 99);
        waves_->open(file.c_str());
    }
#endif

    void end() {
#if VM_TRACE_FST
        if (waves_) waves_->close();
#endif
        top_.final();
    }

    double elapsed_s() const { return wall_s() - started_s_; }

    void tick() {
        memory.drive(cycle);
        host.drive();
        half(0);
        memory.sample(cycle);
        host.sample();
        half(1);
        if (++cycle % LOOK_CYCLES == 0) look();
    }

    void reset(uint64_t cycles) {
        if (cycle == 0) started_s_ = wall_s();
        memory.reset();
        host.reset();
        top_.rst = 1;
        for (uint64_t left = cycles; left; --left) {
            half(0);
            if (left < cycles) check_quiet();
            half(1);
            ++cycle;
        }
        top_.rst = 0;
    }

    void write(uint32_t address, uint32_t value) {
        host.start_write(address, value);
        answer("write", address);
    }

    uint32_t read(uint32_t address) {
        host.start_read(address);
        answer("read", address);
        return host.value();
    }

    bool interrupt() const { return top_.__SYM__interrupt; }  // a reserved word to Verilator

  private:
    void half(int level) {
        top_.clk = level;
        top_.eval();
#if VM_TRACE_FST
        if (waves_) waves_->dump(2 * cycle + level);
#endif
    }

    void check_quiet() const {
        if (memory.offered() || top_.control_bvalid || top_.control_rvalid) {
            broken("reset-valid", "a valid is high in reset");
        }
    }

    void answer(const char* what, uint32_t address) {
        for (uint64_t waited = 0; !host.answered(); ++waited) {
            if (waited == ANSWER_CYCLES) {
                throw Failure{"control", "",
                              format("the %s of register 0x%03x had no answer in %" PRIu64
                                     " cycles",
                                     what, address, ANSWER_CYCLES)};
            }
            tick();
        }
        if (host.response() != OKAY) {
            throw Failure{"control", "",
                          format("the %s of register 0x%03x was answered with response %u", what,
                                 address, host.response())};
        }
    }

    void look() {
        const double now = wall_s();
        if (now - looked_s_ < PROGRESS_S) return;
        if (getppid() != parent_) _exit(1);
        const double rate = static_cast<double>(cycle - looked_cycle_) / (now - looked_s_);
        const long product = status_known ? static_cast<long>(status >> 16) : -1;
        replace_file("progress.json",
                     format("{\"cycles\": %" PRIu64 ", \"cycles_per_s\": %.1f, \"product\": %ld}\n",
                            cycle, rate, product));
        looked_s_ = now;
        looked_cycle_ = cycle;
    }

#if VM_TRACE_FST
    std::unique_ptr<VerilatedFstC> waves_;
#endif
    const pid_t parent_ = getppid();
    double started_s_ = 0, looked_s_ = 0;
    uint64_t looked_cycle_ = 0;
};

// One line of a script, taken word by word.
class Step {
  public:
    explicit Step(const std::string& line) : line_(line), words_(line) { words_ >> verb; }

    std::string verb;

    std::string word() {
        std::string found;
        if (!(words_ >> found)) throw Failure{"script", "", "words are missing in '" + line_ + "'"};
        return found;
    }

    uint64_t number() {
        const std::string found = word();
        size_t used = 0;
        uint64_t value = 0;
        try {
            value = std::stoull(found, &used, 0);
        } catch (const std::exception&) {
            used = 0;
        }
        if (!used || used != found.size()) {
            throw Failure{"script", "", "expected a number, got '" + found + "' in '" + line_ + "'"};
        }
        return value;
    }

  private:
    std::string line_;
    std::istringstream words_;
};

class Runner {
  public:
    explicit Runner(Bench& bench) : bench_(bench) {}

    void run(std::istream& script) {
        for (std::string line; std::getline(script, line);) {
            Step step(line);
            if (step.verb.empty()) continue;
            const auto found = verbs_.find(step.verb);
            if (found == verbs_.end()) throw Failure{"script", "", "unknown step '" + line + "'"};
            found->second(step);
        }
    }

    // {"name": [value, cycle], ...}
    std::string records() const { return records_; }

  private:
    void note(const std::string& name, uint64_t value) {
        records_ += records_.empty() ? "" : ", ";
        records_ += quoted(name) + format(": [%" PRIu64 ", %" PRIu64 "]", value, bench_.cycle);
    }

    void expect(Step& step) {
        const uint32_t address = step.number(), wanted = step.number(), mask = step.number();
        const uint32_t found = bench_.read(address);
        if ((found & mask) != (wanted & mask)) {
            throw Failure{"expect", "",
                          format("register 0x%03x: expected 0x%08x in the bits 0x%08x, got 0x%08x",
                                 address, wanted, mask, found)};
        }
    }

    // Done, paused, or an error that ends the run (5, start while busy, does not).
    static bool settled(uint32_t status) {
        const unsigned code = status >> 4 & 15;
        return (status & 6) || (code != 0 && code != 5);
    }

    void wait_done(Step& step) {
        const uint32_t address = step.number();
        const uint64_t most = step.number(), poll = step.number();
        const uint64_t began = bench_.cycle;
        bench_.status_known = true;
        while (!settled(bench_.status = bench_.read(address))) {
            if (bench_.cycle - began >= most) {
                throw Failure{"timeout", "",
                              format("expected done, paused or an error within %" PRIu64
                                     " cycles, STATUS is 0x%08x",
                                     most, bench_.status)};
            }
            for (uint64_t left = poll; left; --left) bench_.tick();
        }
        note(step.word(), bench_.status);
    }

    void wait_interrupt(Step& step) {
        const uint64_t most = step.number();
        for (uint64_t waited = 0; !bench_.interrupt(); ++waited) {
            if (waited == most) {
                throw Failure{"timeout", "",
                              format("expected an interrupt within %" PRIu64 " cycles", most)};
            }
            bench_.tick();
        }
    }

    void read_debug(Step& step) {
        const uint32_t select = step.number(), data = step.number();
        const uint32_t first = step.number(), count = step.number(), slices = step.number();
        const std::string name = step.word();
        std::ofstream file(name + ".bin", std::ios::binary);
        for (uint32_t word = first; word < first + count; ++word) {
            bench_.write(select, word);
            for (uint32_t slice = 0; slice < slices; ++slice) {
                const uint32_t value = bench_.read(data + 4 * slice);
                for (int shift = 0; shift < 32; shift += 8) file.put(char(value >> shift));
            }
        }
        note(name, 4ull * slices * count);
    }

    static std::ifstream open(const std::string& name) {
        std::ifstream file(name, std::ios::binary);
        if (!file) throw Failure{"script", "", "the file " + name + " cannot be read"};
        return file;
    }

    // Through a window of two registers: an address that advances, and 32 bits of memory.
    void load_window(Step& step) {
        const uint32_t select = step.number(), data = step.number();
        bench_.write(select, step.number());
        std::ifstream file = open(step.word());
        for (char part[4] = {}; file.read(part, 4), file.gcount() > 0; std::memset(part, 0, 4)) {
            uint32_t value = 0;
            for (int lane = 0; lane < 4; ++lane) value |= uint32_t(uint8_t(part[lane])) << 8 * lane;
            bench_.write(data, value);
        }
    }

    void dump_window(Step& step) {
        const uint32_t select = step.number(), data = step.number();
        const uint64_t address = step.number(), length = step.number();
        const std::string name = step.word();
        std::ofstream file(name + ".bin", std::ios::binary);
        bench_.write(select, address);
        for (uint64_t at = 0; at < length; at += 4) {
            const uint32_t value = bench_.read(data);
            for (uint64_t lane = 0; lane < 4 && at + lane < length; ++lane) {
                file.put(char(value >> 8 * lane));
            }
        }
        note(name, length);
    }

    void load(Step& step) {
        uint64_t address = step.number();
        std::ifstream file = open(step.word());
        std::vector<char> part(COPY_BYTES);
        while (file.read(part.data(), part.size()), file.gcount() > 0) {
            bench_.contents.write(address, reinterpret_cast<const uint8_t*>(part.data()),
                                  file.gcount());
            address += file.gcount();
        }
    }

    void dump(Step& step) {
        uint64_t address = step.number(), left = step.number();
        const std::string name = step.word();
        note(name, left);
        std::ofstream file(name + ".bin", std::ios::binary);
        std::vector<char> part(COPY_BYTES);
        while (left) {
            const size_t length = std::min<uint64_t>(left, COPY_BYTES);
            bench_.contents.read(address, reinterpret_cast<uint8_t*>(part.data()), length);
            file.write(part.data(), length);
            address += length;
            left -= length;
        }
    }

    Bench& bench_;
    std::string records_;
    const std::map<std::string, std::function<void(Step&)>> verbs_{
        {"memory",
         [this](Step& step) {
             Timing& timing = bench_.memory.timing;
             timing.latency = step.number();
             timing.gap = step.number();
             timing.outstanding = step.number();
         }},
        {"reset", [this](Step& step) { bench_.reset(step.number()); }},
        {"write",
         [this](Step& step) {
             const uint32_t address = step.number();
             bench_.write(address, step.number());
         }},
        {"read",
         [this](Step& step) {
             const uint32_t value = bench_.read(step.number());
             note(step.word(), value);
         }},
        {"expect", [this](Step& step) { expect(step); }},
        {"wait_done", [this](Step& step) { wait_done(step); }},
        {"wait_interrupt", [this](Step& step) { wait_interrupt(step); }},
        {"sleep",
         [this](Step& step) {
             for (uint64_t left = step.number(); left; --left) bench_.tick();
         }},
        {"read_debug", [this](Step& step) { read_debug(step); }},
        {"load", [this](Step& step) { load(step); }},
        {"dump", [this](Step& step) { dump(step); }},
        {"load_window", [this](Step& step) { load_window(step); }},
        {"dump_window", [this](Step& step) { dump_window(step); }},
        {"fail_reads", [this](Step& step) { bench_.memory.faults.read = step.number(); }},
        {"fail_writes", [this](Step& step) { bench_.memory.faults.write = step.number(); }},
        {"silence", [this](Step& step) { bench_.memory.faults.silent_from = step.number(); }},
        {"no_faults", [this](Step&) { bench_.memory.faults = Faults{}; }},
    };
};

std::string error_text(const Failure& failure, uint64_t cycle) {
    return "{\"kind\": " + quoted(failure.kind) + ", \"rule\": " + quoted(failure.rule) +
           ", \"text\": " + quoted(failure.text) + format(", \"cycle\": %" PRIu64 "}", cycle);
}

}  // namespace

int main(int count, char** arguments) {
    std::optional<uint64_t> seed;
    std::string waves;
    for (int index = 1; index + 1 < count; index += 2) {
        const std::string option = arguments[index];
        if (option == "--jitter") seed = std::stoull(arguments[index + 1]);
        if (option == "--waves") waves = arguments[index + 1];
    }
    const auto bench = std::make_unique<Bench>(seed);
    std::string error = "null";
    Runner runner(*bench);
    try {
#if VM_TRACE_FST
        if (!waves.empty()) bench->trace(waves);
#endif
        std::ifstream script("script.txt");
        runner.run(script);
    } catch (const Failure& failure) {
        error = error_text(failure, bench->cycle);
    }
    const double elapsed_s = bench->elapsed_s();
    bench->end();
    const Traffic& traffic = bench->memory.traffic;
    std::string answers;
    for (const uint64_t cycle : traffic.answers) {
        answers += format("%s%" PRIu64, answers.empty() ? "" : ", ", cycle);
    }
    const SparseMemory& contents = bench->contents;
    replace_file(
        "outcome.json",
        "{\"error\": " + error + ", \"records\": {" + runner.records() + "}" +
            format(", \"cycles\": %" PRIu64 ", \"wall_s\": %.6f, \"traffic\": {\"read_bursts\": %"
                   PRIu64 ", \"read_beats\": %" PRIu64 ", \"write_bursts\": %" PRIu64
                   ", \"write_beats\": %" PRIu64 ", \"unwritten_bytes\": %" PRIu64
                   ", \"first_unwritten\": %" PRIu64 ", \"answers\": [",
                   bench->cycle, elapsed_s, traffic.read_bursts, traffic.read_beats,
                   traffic.write_bursts, traffic.write_beats, contents.unwritten_bytes,
                   contents.unwritten_bytes ? contents.first_unwritten : 0) +
            answers + "]}}\n");
    return error == "null" ? 0 : 1;
}
