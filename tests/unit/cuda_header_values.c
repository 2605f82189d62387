/*
 * Prints constants, sizes and offsets of the driver's interface: built by tests/unit/cuda_header once with our header and
 * once with NVIDIA's, whose outputs must be the same. constants.h is made by that script.
 */
#include <stddef.h>
#include <stdio.h>
#ifdef WITH_CUDA_HEADER
#include <cuda.h>
#else
#include "cuda/cuda_abi.h"
#endif

#define CONSTANT(name) printf("%s = %d\n", #name, (int)(name));
#define SIZE(type)     printf("sizeof %s = %zu\n", #type, sizeof(type));
#define FIELD(type, field)                                                                                             \
    printf("%s.%s at %zu, %zu bytes\n", #type, #field, offsetof(type, field), sizeof(((type *)0)->field));

#define FIELDS_COPY(type)                                                                                              \
    SIZE(type)                                                                                                         \
    FIELD(type, srcXInBytes)                                                                                           \
    FIELD(type, srcY)                                                                                                  \
    FIELD(type, srcMemoryType)                                                                                         \
    FIELD(type, srcHost)                                                                                               \
    FIELD(type, srcDevice)                                                                                             \
    FIELD(type, srcArray)                                                                                              \
    FIELD(type, srcPitch)                                                                                              \
    FIELD(type, dstXInBytes)                                                                                           \
    FIELD(type, dstY)                                                                                                  \
    FIELD(type, dstMemoryType)                                                                                         \
    FIELD(type, dstHost)                                                                                               \
    FIELD(type, dstDevice)                                                                                             \
    FIELD(type, dstArray)                                                                                              \
    FIELD(type, dstPitch)                                                                                              \
    FIELD(type, WidthInBytes)                                                                                          \
    FIELD(type, Height)
#define FIELDS_COPY_3D(type)                                                                                           \
    FIELDS_COPY(type)                                                                                                  \
    FIELD(type, srcZ)                                                                                                  \
    FIELD(type, srcLOD)                                                                                                \
    FIELD(type, srcHeight)                                                                                             \
    FIELD(type, dstZ)                                                                                                  \
    FIELD(type, dstLOD)                                                                                                \
    FIELD(type, dstHeight)                                                                                             \
    FIELD(type, Depth)

int main(void)
{
#include "constants.h"
    printf("CU_STREAM_LEGACY = %zu, CU_STREAM_PER_THREAD = %zu\n", (size_t)CU_STREAM_LEGACY,
           (size_t)CU_STREAM_PER_THREAD);
    SIZE(CUresult)
    SIZE(CUdevice)
    SIZE(CUdeviceptr)
    SIZE(CUdeviceptr_v1)
    SIZE(CUuuid)
    SIZE(CUdriverProcAddressQueryResult)
    FIELDS_COPY(CUDA_MEMCPY2D)
    FIELDS_COPY(CUDA_MEMCPY2D_v1)
    FIELDS_COPY_3D(CUDA_MEMCPY3D)
    FIELDS_COPY_3D(CUDA_MEMCPY3D_v1)
    FIELDS_COPY_3D(CUDA_MEMCPY3D_PEER)
    FIELD(CUDA_MEMCPY3D_PEER, srcContext)
    FIELD(CUDA_MEMCPY3D_PEER, dstContext)
    SIZE(CUmemLocation)
    FIELD(CUmemLocation, id)
    SIZE(CUmemAccessDesc)
    FIELD(CUmemAccessDesc, flags)
    SIZE(CUmemPoolProps)
    FIELD(CUmemPoolProps, allocType)
    FIELD(CUmemPoolProps, handleTypes)
    FIELD(CUmemPoolProps, location)
    FIELD(CUmemPoolProps, maxSize)
    FIELD(CUmemPoolProps, usage)
    SIZE(CUgraphEdgeData)
    SIZE(CUDA_MEM_ALLOC_NODE_PARAMS)
    FIELD(CUDA_MEM_ALLOC_NODE_PARAMS, accessDescs)
    FIELD(CUDA_MEM_ALLOC_NODE_PARAMS, bytesize)
    FIELD(CUDA_MEM_ALLOC_NODE_PARAMS, dptr)
    SIZE(CUDA_HOST_NODE_PARAMS)
    SIZE(CUDA_MEMCPY_NODE_PARAMS)
    FIELD(CUDA_MEMCPY_NODE_PARAMS, copyParams)
    FIELD(CUDA_CHILD_GRAPH_NODE_PARAMS, graph)
    FIELD(CUDA_CHILD_GRAPH_NODE_PARAMS, ownership)
    SIZE(CUgraphNodeParams)
    FIELD(CUgraphNodeParams, type)
    FIELD(CUgraphNodeParams, kernel.kernelParams)
    FIELD(CUgraphNodeParams, kernel.ctx)
    FIELD(CUgraphNodeParams, memset.value)
    FIELD(CUgraphNodeParams, memset.ctx)
    FIELD(CUgraphNodeParams, free.dptr)
    SIZE(CUDA_GRAPH_INSTANTIATE_PARAMS)
    FIELD(CUDA_GRAPH_INSTANTIATE_PARAMS, hErrNode_out)
    FIELD(CUDA_GRAPH_INSTANTIATE_PARAMS, result_out)
    SIZE(CUdevprop)
    FIELD(CUdevprop, maxThreadsDim)
    FIELD(CUdevprop, maxGridSize)
    FIELD(CUdevprop, sharedMemPerBlock)
    FIELD(CUdevprop, totalConstantMemory)
    FIELD(CUdevprop, SIMDWidth)
    FIELD(CUdevprop, memPitch)
    FIELD(CUdevprop, regsPerBlock)
    FIELD(CUdevprop, clockRate)
    FIELD(CUdevprop, textureAlign)
    SIZE(CUDA_ARRAY_DESCRIPTOR)
    FIELD(CUDA_ARRAY_DESCRIPTOR, Height)
    FIELD(CUDA_ARRAY_DESCRIPTOR, Format)
    FIELD(CUDA_ARRAY_DESCRIPTOR, NumChannels)
    SIZE(CUDA_ARRAY_DESCRIPTOR_v1)
    FIELD(CUDA_ARRAY_DESCRIPTOR_v1, NumChannels)
    SIZE(CUDA_ARRAY3D_DESCRIPTOR)
    FIELD(CUDA_ARRAY3D_DESCRIPTOR, Depth)
    FIELD(CUDA_ARRAY3D_DESCRIPTOR, Format)
    FIELD(CUDA_ARRAY3D_DESCRIPTOR, NumChannels)
    FIELD(CUDA_ARRAY3D_DESCRIPTOR, Flags)
    SIZE(CUDA_ARRAY3D_DESCRIPTOR_v1)
    FIELD(CUDA_ARRAY3D_DESCRIPTOR_v1, Flags)
    SIZE(CUDA_ARRAY_MEMORY_REQUIREMENTS)
    FIELD(CUDA_ARRAY_MEMORY_REQUIREMENTS, alignment)
    SIZE(CUDA_ARRAY_SPARSE_PROPERTIES)
    FIELD(CUDA_ARRAY_SPARSE_PROPERTIES, miptailSize)
    FIELD(CUDA_ARRAY_SPARSE_PROPERTIES, flags)
    SIZE(CUdevResource)
    FIELD(CUdevResource, sm)
    SIZE(CUdevSmResource)
    SIZE(CUlaunchConfig)
    FIELD(CUlaunchConfig, gridDimX)
    FIELD(CUlaunchConfig, blockDimZ)
    FIELD(CUlaunchConfig, sharedMemBytes)
    FIELD(CUlaunchConfig, hStream)
    FIELD(CUlaunchConfig, attrs)
    FIELD(CUlaunchConfig, numAttrs)
    SIZE(CUmemGenericAllocationHandle)
    SIZE(CUmemLocation)
    FIELD(CUmemLocation, id)
    SIZE(CUmemAllocationProp)
    FIELD(CUmemAllocationProp, requestedHandleTypes)
    FIELD(CUmemAllocationProp, location)
    FIELD(CUmemAllocationProp, allocFlags)
    SIZE(CUmemAccessDesc)
    FIELD(CUmemAccessDesc, flags)
    SIZE(CUmulticastObjectProp)
    FIELD(CUmulticastObjectProp, size)
    FIELD(CUmulticastObjectProp, handleTypes)
    SIZE(CUipcMemHandle)
    SIZE(CUDA_EXTERNAL_MEMORY_HANDLE_DESC)
    FIELD(CUDA_EXTERNAL_MEMORY_HANDLE_DESC, handle)
    FIELD(CUDA_EXTERNAL_MEMORY_HANDLE_DESC, size)
    FIELD(CUDA_EXTERNAL_MEMORY_HANDLE_DESC, flags)
    SIZE(CUprocessState)
    SIZE(CUcheckpointLockArgs)
    FIELD(CUcheckpointLockArgs, timeoutMs)
    FIELD(CUcheckpointLockArgs, reserved0)
    SIZE(CUcheckpointCheckpointArgs)
    SIZE(CUcheckpointGpuPair)
    FIELD(CUcheckpointGpuPair, newUuid)
    SIZE(CUcheckpointRestoreArgs)
    FIELD(CUcheckpointRestoreArgs, gpuPairsCount)
    FIELD(CUcheckpointRestoreArgs, reserved)
    FIELD(CUcheckpointRestoreArgs, reserved1)
    SIZE(CUcheckpointUnlockArgs)
    SIZE(CUDA_EXTERNAL_MEMORY_BUFFER_DESC)
    FIELD(CUDA_EXTERNAL_MEMORY_BUFFER_DESC, size)
    FIELD(CUDA_EXTERNAL_MEMORY_BUFFER_DESC, flags)
    return 0;
}
