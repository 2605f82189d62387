/*
 * Access between devices: every card of the machine reaches every other. The bits are the context's, by this process's
 * numbers of devices; copies and kernels need none of it here. State under sim_lock.
 */
#include "sim/sim.h"

enum { P2P_RANK = 1, P2P_LAST = 5 };

SIM_API CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer)
{
    SIM_ENTER();
    if (!can)
        return CUDA_ERROR_INVALID_VALUE;
    if (device_check(device) != CUDA_SUCCESS || device_check(peer) != CUDA_SUCCESS)
        return CUDA_ERROR_INVALID_DEVICE;
    *can = device != peer;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetP2PAttribute(int *value, int attribute, CUdevice device, CUdevice peer)
{
    SIM_ENTER();
    if (!value || attribute < P2P_RANK || attribute > P2P_LAST)
        return CUDA_ERROR_INVALID_VALUE;
    if (device_check(device) != CUDA_SUCCESS || device_check(peer) != CUDA_SUCCESS || device == peer)
        return CUDA_ERROR_INVALID_DEVICE;
    *value = attribute != P2P_RANK && attribute != P2P_LAST;
    return CUDA_SUCCESS;
}

/* Turns one bit of the current context on or off. */
static CUresult peer_change(CUcontext context, CUcontext peer, bool on)
{
    CUresult result = CUDA_SUCCESS;
    sim_lock();
    if (!context_is_alive(peer)) {
        result = CUDA_ERROR_INVALID_CONTEXT;
    } else {
        unsigned bit = 1u << (unsigned)peer->device;
        if (on && peer->device == context->device)
            result = CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
        else if (on && context->peers & bit)
            result = CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
        else if (!on && !(context->peers & bit))
            result = CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
        else
            context->peers ^= bit;
    }
    sim_unlock();
    return result;
}

SIM_API CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned flags)
{
    SIM_ENTER_CONTEXT(context);
    return flags == 0 ? peer_change(context, peer, true) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuCtxDisablePeerAccess(CUcontext peer)
{
    SIM_ENTER_CONTEXT(context);
    return peer_change(context, peer, false);
}
