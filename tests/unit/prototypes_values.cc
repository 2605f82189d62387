/*
 * Compares how arguments travel: ours, as src/interpose/hooks.def has them, and a cuda.h's. Not the types (ours are opaque) but
 * what the ABI makes of each: its size, and whether it is a number, a floating one or a structure with which alignment. A line for each
 * function that differs, and the count of those compared. tests/unit/prototypes makes COMPARED(ours, theirs) lines and builds it.
 */
#include <cstdio>
#include <type_traits>

#include <cuda.h>
#ifdef WITH_PROFILER
#include <cudaProfiler.h>
#endif

#define _Static_assert static_assert
namespace ours {
#include "cuda/cuda_abi.h"
#define TYPED(symbol, class, parameters) using type_##symbol = CUresult parameters;
#define WRAP                             TYPED
#define PASS                             TYPED
#define SAFE                             TYPED
#include "interpose/hooks.def"
} // namespace ours

template <typename Ours, typename Theirs> constexpr bool travels_alike()
{
    return sizeof(Ours) == sizeof(Theirs) && std::is_floating_point<Ours>::value == std::is_floating_point<Theirs>::value &&
           std::is_class<Ours>::value == std::is_class<Theirs>::value &&
           std::is_pointer<Ours>::value <= (std::is_pointer<Theirs>::value || sizeof(Theirs) == 8) &&
           (!std::is_class<Ours>::value || alignof(Ours) == alignof(Theirs) || sizeof(Ours) > 16);
}

template <typename Ours, typename Theirs> struct alike : std::false_type {
};
template <typename R, typename S, typename... Ours, typename... Theirs>
struct alike<R(Ours...), S(Theirs...)>
    : std::integral_constant<bool, sizeof...(Ours) == sizeof...(Theirs) && sizeof(R) == sizeof(S)> {
};
template <typename R, typename S> struct alike<R(), S()> : std::integral_constant<bool, sizeof(R) == sizeof(S)> {
};
template <typename R, typename S, typename O, typename T, typename... Ours, typename... Theirs>
struct alike<R(O, Ours...), S(T, Theirs...)>
    : std::integral_constant<bool, travels_alike<O, T>() && alike<R(Ours...), S(Theirs...)>::value> {
};

int main()
{
    unsigned count = 0;
#define COMPARED(symbol, declared)                                                                                     \
    count++;                                                                                                           \
    if (!alike<ours::type_##symbol, decltype(declared)>::value)                                                        \
        std::printf("%s\n", #symbol);
#include "compared.h"
    std::printf("%u\n", count);
}
