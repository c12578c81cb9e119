# The compiler flags that every target of Dure is built with.
add_library(dure_warnings INTERFACE)
target_compile_options(dure_warnings INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wvla -Wstrict-prototypes -Wmissing-prototypes
  -Wpointer-arith -Wcast-qual -Wundef -Wwrite-strings -fno-common -ffp-contract=off)
if(DURE_WERROR)
  target_compile_options(dure_warnings INTERFACE -Werror)
endif()
