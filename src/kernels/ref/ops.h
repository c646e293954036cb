/* The operators of plain C by file; table.c says which is whose. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "kernels/ref/ref.h"

ref_fn ref_unary;                                /* unary.c */
ref_fn ref_binary, ref_pow, ref_where, ref_clip; /* binary.c */
ref_fn ref_identity, ref_cast, ref_bit_cast, ref_dropout, ref_reshape, ref_transpose, ref_concat, ref_split, ref_slice,
    ref_pad, ref_expand, ref_tile, ref_depth_to_space, ref_space_to_depth, ref_trilu;        /* move.c */
ref_fn ref_gather, ref_gather_elements;                                                      /* gather.c */
ref_fn ref_gather_nd, ref_scatter_elements, ref_scatter_nd, ref_one_hot;                     /* scatter.c */
ref_fn ref_constant, ref_constant_of_shape, ref_shape, ref_size_of, ref_range, ref_eye_like; /* make.c */
ref_fn ref_reduce, ref_arg, ref_cumsum;                                                      /* reduce.c */
ref_scratch_fn ref_reduce_scratch;
ref_fn ref_softmax, ref_lp_norm; /* softmax.c */
ref_scratch_fn ref_softmax_scratch;
ref_fn ref_batch_norm, ref_instance_norm, ref_layer_norm, ref_lrn; /* norm.c */
ref_scratch_fn ref_batch_norm_scratch, ref_instance_norm_scratch, ref_layer_norm_scratch;
ref_fn ref_matmul, ref_gemm; /* matmul.c */
ref_fn ref_einsum;           /* einsum.c */
ref_scratch_fn ref_matmul_scratch, ref_gemm_scratch;
ref_fn ref_conv; /* conv.c */
ref_scratch_fn ref_conv_scratch;
ref_fn ref_conv_transpose; /* deconv.c */
ref_scratch_fn ref_conv_transpose_scratch;
ref_fn ref_max_pool, ref_average_pool; /* pool.c */
ref_scratch_fn ref_pool_scratch;
ref_fn ref_resize; /* resize.c */
ref_scratch_fn ref_resize_scratch;
ref_fn ref_grid_sample; /* sample.c */
ref_scratch_fn ref_grid_sample_scratch;
ref_fn ref_non_zero, ref_nms, ref_topk; /* select.c */
ref_scratch_fn ref_nms_scratch, ref_topk_scratch;
ref_fn ref_unique; /* unique.c */
ref_scratch_fn ref_unique_scratch;
ref_fn ref_det; /* det.c */
ref_scratch_fn ref_det_scratch;
ref_fn ref_roi_align, ref_max_roi_pool; /* roi.c */
ref_fn ref_deform_conv;                 /* deform.c */
ref_scratch_fn ref_deform_conv_scratch;
ref_fn ref_col2im, ref_max_unpool, ref_tensor_scatter, ref_affine_grid; /* spread.c */
ref_fn ref_dft, ref_stft, ref_mel_weight_matrix;                        /* spectrum.c */
ref_scratch_fn ref_dft_scratch, ref_stft_scratch;
ref_fn ref_recurrent; /* recurrent.c */
ref_scratch_fn ref_recurrent_scratch;
ref_fn ref_recurrent_f64; /* recurrent_f64.c */
ref_scratch_fn ref_recurrent_f64_scratch;
ref_fn ref_integer, ref_dynamic_quantize; /* integer.c */
ref_scratch_fn ref_integer_scratch;
ref_fn ref_quantize, ref_dequantize; /* quantize.c */
ref_fn ref_unary_grad, ref_softmax_grad;                       /* gradient_unary.c */
ref_fn ref_gather_grad, ref_slice_grad;                        /* gradient_move.c */
ref_fn ref_dropout_by;                                         /* dropout.c */
ref_fn ref_conv_grad_weight, ref_max_pool_grad, ref_average_pool_grad; /* gradient_window.c */
ref_scratch_fn ref_conv_grad_weight_scratch;
ref_fn ref_batch_norm_train, ref_batch_norm_grad, ref_instance_norm_grad, ref_layer_norm_grad; /* gradient_norm.c */
ref_scratch_fn ref_norm_grad_scratch, ref_layer_norm_grad_scratch;
