# dure_test(FOLDER.MODULE SOURCES test_x.c [LAYERS ...] [LABELS ...] [ARGS ...] [TIMEOUT s])
#
# One cmocka executable a module, registered with CTest as FOLDER.MODULE and linked to the layer
# FOLDER and the LAYERS named. DURE_TEST_VECTORS is the folder tests/vectors. The exit status 77
# marks a skipped test.
function(dure_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LAYERS;LABELS;ARGS" ${ARGN})
  string(REPLACE "." "_" target "test_${name}")
  string(REGEX REPLACE "\\..*" "" folder "${name}")
  add_executable(${target} ${ARG_SOURCES})
  set_target_properties(${target} PROPERTIES C_STANDARD 11 C_EXTENSIONS OFF)
  target_compile_definitions(${target} PRIVATE
    DURE_TEST_VECTORS="${PROJECT_SOURCE_DIR}/tests/vectors")
  if(TARGET dure_${folder})
    target_link_libraries(${target} PRIVATE dure::${folder})
  endif()
  foreach(layer ${ARG_LAYERS})
    target_link_libraries(${target} PRIVATE dure::${layer})
  endforeach()
  target_link_libraries(${target} PRIVATE dure_support dure_warnings PkgConfig::cmocka)
  add_test(NAME ${name} COMMAND ${target} ${ARG_ARGS})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(CMAKE_CROSSCOMPILING) # an emulator takes its time
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 10")
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} SKIP_RETURN_CODE 77
                       LABELS "${ARG_LABELS}")
endfunction()

# dure_fuzz(NAME SOURCES fuzz_x.c LAYERS ...): a libFuzzer program with DURE_FUZZ, and always a
# plain program, test fuzz.NAME, that runs the same entry point over tests/fuzz/corpus/NAME.
function(dure_fuzz name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LAYERS" ${ARGN})
  set(targets replay_${name})
  add_executable(replay_${name} ${ARG_SOURCES} ${PROJECT_SOURCE_DIR}/tests/fuzz/replay.c)
  add_test(NAME fuzz.${name} COMMAND replay_${name} ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
  if(DURE_FUZZ)
    add_executable(fuzz_${name} ${ARG_SOURCES})
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    list(APPEND targets fuzz_${name})
  endif()
  foreach(target ${targets})
    set_target_properties(${target} PROPERTIES C_STANDARD 11 C_EXTENSIONS OFF)
    foreach(layer ${ARG_LAYERS})
      target_link_libraries(${target} PRIVATE dure::${layer})
    endforeach()
    target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
    target_link_libraries(${target} PRIVATE dure_warnings)
  endforeach()
endfunction()
