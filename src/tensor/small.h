/* Types of eight bits and fewer. In memory each number has a byte of its own, also where a file packs two or four into one:
 *     float8, float4    their code in the low bits
 *     int4, int2        the number itself, as an int8
 *     uint4, uint2      the number itself
 * Formats: ONNX, "Float stored in 8 bits" and "4 bit floating point"; OCP OFP8 and MX. SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "tensor/tensor.h"

bool tensor_dtype_is_small(enum tensor_dtype t);
/* Bits in a file: 8, 4, 2; 0 for all other types. */
int tensor_small_bits(enum tensor_dtype t);
/* The float that a code stands for; only for the float8 and float4 types. */
float tensor_small_float(enum tensor_dtype t, uint8_t code);
/* The nearest code, ties to even. What is too large becomes the largest number if `saturate` (float4: always), else infinity, or NaN
 * where the format has no infinity. */
uint8_t tensor_small_code(enum tensor_dtype t, float v, bool saturate);
/* float8e8m0 holds powers of two: `how` is "up" (to the next), "down" or "nearest". */
uint8_t tensor_e8m0_code(float v, bool saturate, const char *how);
/* n numbers as a file packs them, the first in the low bits, into a byte each. */
void tensor_small_unpack(enum tensor_dtype t, const uint8_t *from, size_t n, uint8_t *to);
