// The types in the declarations of MXNet's extension interface, for abi.cc and unused.cc.
//
// The function pointers that MXNet passes around (fcomp_t, parseAttrs_t, ...) are opaque to it: it
// gets them from _opRegGet and only hands them back.  With D2L_CHECK_ABI the types are those of
// lib_api.h, beside whose declarations a wrong one of ours does not compile.
#ifndef D2L_MXNET_TYPES_H_
#define D2L_MXNET_TYPES_H_

#include <stddef.h>
#include <stdint.h>

#ifdef D2L_CHECK_ABI
#include <mxnet/lib_api.h>
using mxnet::ext::createOpState_t;
using mxnet::ext::createSelector_t;
using mxnet::ext::fcomp_t;
using mxnet::ext::graphPass_t;
using mxnet::ext::inferShape_t;
using mxnet::ext::inferSType_t;
using mxnet::ext::inferType_t;
using mxnet::ext::mutateInputs_t;
using mxnet::ext::MXReturnValue;
using mxnet::ext::nd_malloc_t;
using mxnet::ext::parseAttrs_t;
using mxnet::ext::reviewSubgraph_t;
using mxnet::ext::sparse_malloc_t;
using mxnet::ext::supportedOps_t;
using mxnet::ext::xpu_malloc_t;
#else
typedef int MXReturnValue;
typedef void* (*xpu_malloc_t)(void*, int);
typedef void (*Opaque)();
typedef Opaque createOpState_t, createSelector_t, fcomp_t, graphPass_t, inferShape_t, inferSType_t,
    inferType_t, mutateInputs_t, nd_malloc_t, parseAttrs_t, reviewSubgraph_t, sparse_malloc_t,
    supportedOps_t;
#endif

#endif  // D2L_MXNET_TYPES_H_
