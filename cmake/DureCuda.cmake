# With DURE_CUDA: nvcc, looked for in PATH and in /usr/local/cuda, and the architectures that the
# kernels are compiled for. Without it nothing here needs a toolkit.
if(DURE_CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    find_program(DURE_NVCC nvcc PATHS ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
    if(NOT DURE_NVCC)
      message(FATAL_ERROR "DURE_CUDA is on, but there is no nvcc in PATH or /usr/local/cuda/bin. "
        "Install the CUDA Toolkit (13.0 is what this was built with), or name nvcc with "
        "-DCMAKE_CUDA_COMPILER=...")
    endif()
    set(CMAKE_CUDA_COMPILER ${DURE_NVCC})
  endif()
  # CMake's defaults name devices that CUDA 13 no longer knows.
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "80-real;86-real;89-real;90a-real;90-virtual")
  endif()
  set(CMAKE_CUDA_STANDARD 17)
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
endif()

# What runs on a GPU: built into the layers with DURE_CUDA, else for tests on an emulated one alone.
set(DURE_CUDA_KERNELS attention attention_backward clip cross_entropy dequant dora dropout heads lora rows)
list(TRANSFORM DURE_CUDA_KERNELS PREPEND ${PROJECT_SOURCE_DIR}/kernels/cuda/)
list(TRANSFORM DURE_CUDA_KERNELS APPEND .cu)
set(DURE_CUDA_MODEL transformer_cuda transformer_cuda_backward transformer_cuda_forward
    transformer_cuda_weights transformer_cuda_workspace)
list(TRANSFORM DURE_CUDA_MODEL PREPEND ${PROJECT_SOURCE_DIR}/model/)
list(TRANSFORM DURE_CUDA_MODEL APPEND .c)
