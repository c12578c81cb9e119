# Cross compiler for aarch64, whose programs run here under qemu-user (CONTRIBUTING.md). The
# libraries are those of Debian's arm64 architecture, or lie in the folder DURE_SYSROOT.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
if(DEFINED ENV{DURE_SYSROOT})
  set(CMAKE_SYSROOT $ENV{DURE_SYSROOT})
  set(ENV{PKG_CONFIG_SYSROOT_DIR} ${CMAKE_SYSROOT})
endif()
set(ENV{PKG_CONFIG_LIBDIR} ${CMAKE_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L "${CMAKE_SYSROOT}/")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
