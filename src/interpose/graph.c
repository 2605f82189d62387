/*
 * Graphs that allocate memory: learnt when they are instantiated (however their nodes were added, captured ones too),
 * charged when they are launched or uploaded. Wrappers; src/account/pools.h says how.
 */
#include "config.h"

#include "account/account.h"
#include "account/pools.h"
#include "platform/gate.h"
#include "interpose/hooks.h"

/* --- instantiating ------------------------------------------------------------------------------------------------------ */

/* The arguments of all the forms; what one does not have is 0. */
struct making {
    CUgraph graph;
    CUgraphNode *fault;
    char *text;
    size_t text_bytes;
    unsigned long long flags;
    CUDA_GRAPH_INSTANTIATE_PARAMS *parameters;
};

typedef CUresult making_call(const struct driver *driver, CUgraphExec *instance, const struct making *making);

static CUresult instantiate(CUgraphExec *instance, const struct making *making, making_call *call)
{
    const struct driver *driver = driver_get();
    struct graph_call charge = {.any = false};
    if (driver == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return call(driver, instance, making);
    bool uploads = instance != NULL && (making->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) != 0;
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    if (!uploads || graph_begin(driver, NULL, making->graph, &charge)) {
        result = call(driver, instance, making);
        if (uploads)
            graph_end(driver, &charge, result);
        if (result == CUDA_SUCCESS && instance != NULL)
            graph_instantiated(driver, making->graph, *instance, uploads);
    }
    gate_leave();
    return result;
}

static CUresult call_first(const struct driver *driver, CUgraphExec *instance, const struct making *making)
{
    if (driver->cuGraphInstantiate == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return driver->cuGraphInstantiate(instance, making->graph, making->fault, making->text, making->text_bytes);
}

CUresult cuGraphInstantiate(CUgraphExec *instance, CUgraph graph, CUgraphNode *fault, char *text, size_t text_bytes)
{
    struct making making = {.graph = graph, .fault = fault, .text = text, .text_bytes = text_bytes};
    return instantiate(instance, &making, call_first);
}

static CUresult call_second(const struct driver *driver, CUgraphExec *instance, const struct making *making)
{
    if (driver->cuGraphInstantiate_v2 == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return driver->cuGraphInstantiate_v2(instance, making->graph, making->fault, making->text, making->text_bytes);
}

CUresult cuGraphInstantiate_v2(CUgraphExec *instance, CUgraph graph, CUgraphNode *fault, char *text, size_t text_bytes)
{
    struct making making = {.graph = graph, .fault = fault, .text = text, .text_bytes = text_bytes};
    return instantiate(instance, &making, call_second);
}

static CUresult call_flags(const struct driver *driver, CUgraphExec *instance, const struct making *making)
{
    if (driver->cuGraphInstantiateWithFlags == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return driver->cuGraphInstantiateWithFlags(instance, making->graph, making->flags);
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec *instance, CUgraph graph, unsigned long long flags)
{
    struct making making = {.graph = graph, .flags = flags};
    return instantiate(instance, &making, call_flags);
}

static CUresult call_parameters(const struct driver *driver, CUgraphExec *instance, const struct making *making)
{
    if (driver->cuGraphInstantiateWithParams == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return driver->cuGraphInstantiateWithParams(instance, making->graph, making->parameters);
}

static struct making making_of(CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *parameters)
{
    return (struct making){
        .graph = graph, .flags = parameters != NULL ? parameters->flags : 0, .parameters = parameters};
}

CUresult cuGraphInstantiateWithParams(CUgraphExec *instance, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *parameters)
{
    struct making making = making_of(graph, parameters);
    return instantiate(instance, &making, call_parameters);
}

static CUresult call_parameters_ptsz(const struct driver *driver, CUgraphExec *instance, const struct making *making)
{
    if (driver->cuGraphInstantiateWithParams_ptsz == NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return driver->cuGraphInstantiateWithParams_ptsz(instance, making->graph, making->parameters);
}

CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *instance, CUgraph graph,
                                           CUDA_GRAPH_INSTANTIATE_PARAMS *parameters)
{
    struct making making = making_of(graph, parameters);
    return instantiate(instance, &making, call_parameters_ptsz);
}

/* --- launching ------------------------------------------------------------------------------------------------------------ */

typedef CUresult launch_call(CUgraphExec instance, CUstream stream);

/* Launches and uploads alike: both may back the instance's allocations with memory. */
static CUresult launch(const struct driver *driver, launch_call *const *real, CUgraphExec instance, CUstream stream)
{
    struct graph_call charge;
    if (real == NULL || *real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return (*real)(instance, stream);
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    if (!graphs_allocate())
        result = (*real)(instance, stream);
    else if (graph_begin(driver, instance, NULL, &charge)) {
        result = (*real)(instance, stream);
        graph_end(driver, &charge, result);
    }
    gate_leave();
    return result;
}

CUresult cuGraphLaunch(CUgraphExec instance, CUstream stream)
{
    const struct driver *driver = driver_get();
    return launch(driver, driver != NULL ? &driver->cuGraphLaunch : NULL, instance, stream);
}

CUresult cuGraphLaunch_ptsz(CUgraphExec instance, CUstream stream)
{
    const struct driver *driver = driver_get();
    return launch(driver, driver != NULL ? &driver->cuGraphLaunch_ptsz : NULL, instance, stream);
}

CUresult cuGraphUpload(CUgraphExec instance, CUstream stream)
{
    const struct driver *driver = driver_get();
    return launch(driver, driver != NULL ? &driver->cuGraphUpload : NULL, instance, stream);
}

CUresult cuGraphUpload_ptsz(CUgraphExec instance, CUstream stream)
{
    const struct driver *driver = driver_get();
    return launch(driver, driver != NULL ? &driver->cuGraphUpload_ptsz : NULL, instance, stream);
}

/* --- the end ---------------------------------------------------------------------------------------------------------------- */

CUresult cuGraphExecDestroy(CUgraphExec instance)
{
    const struct driver *driver = driver_get();
    struct graph_ending ending;
    if (driver == NULL || driver->cuGraphExecDestroy == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!gate_enter())
        return driver->cuGraphExecDestroy(instance);
    graph_ending_begin(instance, &ending);
    CUresult result = driver->cuGraphExecDestroy(instance);
    graph_ending_end(&ending, result == CUDA_SUCCESS);
    gate_leave();
    return result;
}

CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    const struct driver *driver = driver_get();
    if (driver == NULL || driver->cuDeviceGraphMemTrim == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool outermost = gate_enter();
    account_leaving(+1);
    CUresult result = driver->cuDeviceGraphMemTrim(device);
    if (outermost)
        graphs_trimmed(driver, device);
    account_leaving(-1);
    if (outermost)
        gate_leave();
    return result;
}
