// How a run fails: thrown where it is seen, reported by main.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string>

struct Failure {
    std::string kind;  // protocol, control, timeout, expect or script
    std::string rule;  // of a broken bus rule
    std::string text;
};

__attribute__((format(printf, 1, 2))) inline std::string format(const char* pattern, ...) {
    char buffer[512];
    va_list arguments;
    va_start(arguments, pattern);
    std::vsnprintf(buffer, sizeof buffer, pattern, arguments);
    va_end(arguments);
    return buffer;
}

[[noreturn]] inline void broken(const std::string& rule, const std::string& text) {
    throw Failure{"protocol", rule, text};
}
