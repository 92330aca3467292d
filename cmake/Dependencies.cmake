# SPDX-License-Identifier: GPL-3.0-or-later
# Every library that mpqc is built on; each has one door in the sources.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(PNG REQUIRED)
find_package(JPEG REQUIRED)
find_library(GLPK_LIBRARY NAMES glpk REQUIRED)
pkg_check_modules(PROTOBUF_C REQUIRED IMPORTED_TARGET libprotobuf-c)
find_program(PROTOC_C protoc-c REQUIRED)
find_program(PROTOC protoc REQUIRED)

find_program(LLVM_CONFIG NAMES llvm-config-19 REQUIRED)
execute_process(COMMAND ${LLVM_CONFIG} --includedir OUTPUT_VARIABLE LLVM_INCLUDE OUTPUT_STRIP_TRAILING_WHITESPACE)
execute_process(COMMAND ${LLVM_CONFIG} --libdir OUTPUT_VARIABLE LLVM_LIBDIR OUTPUT_STRIP_TRAILING_WHITESPACE)
find_library(LLVM_LIBRARY NAMES LLVM-19 PATHS ${LLVM_LIBDIR} NO_DEFAULT_PATH REQUIRED)
add_library(mpqc_llvm INTERFACE)
target_include_directories(mpqc_llvm SYSTEM INTERFACE ${LLVM_INCLUDE})
target_link_libraries(mpqc_llvm INTERFACE ${LLVM_LIBRARY})

find_program(LLD NAMES ld.lld-19 REQUIRED)

# The ONNX schema comes from the libonnx-dev package.
find_file(ONNX_PROTO NAMES onnx/onnx.proto PATHS /usr/include /usr/local/include REQUIRED)
