# dure_layer(NAME SOURCES a.c ... [LAYERS common crypto ...] [LIBRARIES PkgConfig::x ...])
#
# Declares the folder NAME as one static library, dure::NAME. LAYERS are the only folders it may
# include; tests/lint/layers.py reads the same lists and fails on any other include.
function(dure_layer name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LAYERS;LIBRARIES" ${ARGN})
  add_library(dure_${name} STATIC ${ARG_SOURCES})
  add_library(dure::${name} ALIAS dure_${name})
  set_target_properties(dure_${name} PROPERTIES C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF
                        POSITION_INDEPENDENT_CODE ON)
  target_compile_definitions(dure_${name} PUBLIC _GNU_SOURCE)
  target_include_directories(dure_${name} PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
  foreach(layer ${ARG_LAYERS})
    target_link_libraries(dure_${name} PUBLIC dure::${layer})
  endforeach()
  target_link_libraries(dure_${name} PRIVATE dure_warnings PUBLIC ${ARG_LIBRARIES})
endfunction()
