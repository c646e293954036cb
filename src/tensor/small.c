/* See small.h. A finite code is sign, exponent, mantissa; counted without its sign it grows with the number, so rounding in steps of
 * the mantissa's last bit carries into the exponent by itself. SPDX-License-Identifier: Apache-2.0 */
#include "tensor/small.h"

#include <math.h>
#include <string.h>

struct format {
    int mantissa, bias, sign; /* bits, exponent bias, the bit of the sign */
    uint8_t most;             /* the largest finite code */
    int infinity, nan;        /* their codes; -1: there is none. nan 0x80: the only one, and there is no -0 */
};

static const struct format *format_of(enum tensor_dtype t)
{
    static const struct format E4M3FN = {3, 7, 0x80, 0x7e, -1, 0x7f}, E4M3FNUZ = {3, 8, 0x80, 0x7f, -1, 0x80},
                               E5M2 = {2, 15, 0x80, 0x7b, 0x7c, 0x7e}, E5M2FNUZ = {2, 16, 0x80, 0x7f, -1, 0x80},
                               E2M1 = {1, 1, 0x08, 0x07, -1, -1};
    switch (t) {
    case TENSOR_F8E4M3FN: return &E4M3FN;
    case TENSOR_F8E4M3FNUZ: return &E4M3FNUZ;
    case TENSOR_F8E5M2: return &E5M2;
    case TENSOR_F8E5M2FNUZ: return &E5M2FNUZ;
    case TENSOR_F4E2M1: return &E2M1;
    default: return NULL;
    }
}

int tensor_small_bits(enum tensor_dtype t)
{
    switch (t) {
    case TENSOR_F8E4M3FN: case TENSOR_F8E4M3FNUZ: case TENSOR_F8E5M2: case TENSOR_F8E5M2FNUZ: case TENSOR_F8E8M0: return 8;
    case TENSOR_U4: case TENSOR_I4: case TENSOR_F4E2M1: return 4;
    case TENSOR_U2: case TENSOR_I2: return 2;
    default: return 0;
    }
}

bool tensor_dtype_is_small(enum tensor_dtype t)
{
    return tensor_small_bits(t) != 0;
}

float tensor_small_float(enum tensor_dtype t, uint8_t code)
{
    const struct format *f = format_of(t);
    if (t == TENSOR_F8E8M0) return code == 0xff ? NAN : ldexpf(1, code - 127);
    if (!f) return NAN;
    if (f->nan == 0x80 ? code == 0x80 : f->nan >= 0 && (code & 0x7f) > f->most && (code & 0x7f) != f->infinity) return NAN;
    int rest = code & (f->sign - 1), exponent = rest >> f->mantissa, fraction = rest & ((1 << f->mantissa) - 1);
    float v = exponent ? ldexpf((float)(fraction + (1 << f->mantissa)), exponent - f->bias - f->mantissa)
                       : ldexpf((float)fraction, 1 - f->bias - f->mantissa);
    if (f->infinity >= 0 && rest == f->infinity) v = INFINITY;
    return code & f->sign ? -v : v;
}

uint8_t tensor_e8m0_code(float v, bool saturate, const char *how)
{
    int exponent;
    if (v != v || v < 0) return 0xff;
    if (isinf(v)) return saturate ? 0xfe : 0xff;
    float fraction = frexpf(v, &exponent); /* v = fraction * 2^exponent, fraction in [0.5, 1) */
    int code = v == 0 ? 0 : exponent - 1 + 127;
    bool up = strcmp(how, "up") == 0 ? fraction > 0.5f : strcmp(how, "nearest") == 0 && fraction >= 0.75f;
    if (v != 0 && code >= 0) code += up;
    if (code < 0) code = 0;
    return code > 0xfe ? (saturate ? 0xfe : 0xff) : (uint8_t)code;
}

uint8_t tensor_small_code(enum tensor_dtype t, float v, bool saturate)
{
    const struct format *f = format_of(t);
    if (t == TENSOR_F8E8M0) return tensor_e8m0_code(v, saturate, "up");
    if (!f) return 0;
    int sign = signbit(v) ? f->sign : 0, exponent, code;
    if (v != v) return f->nan < 0 ? (uint8_t)f->sign : (uint8_t)(f->nan == 0x80 ? 0x80 : f->nan | sign);
    if (f->nan < 0) saturate = true;
    v = fabsf(v);
    code = f->most + 1;
    if (!isinf(v)) {
        frexpf(v, &exponent);
        exponent = v == 0 || exponent - 1 < 1 - f->bias ? 1 - f->bias : exponent - 1;
        float steps = rintf(ldexpf(v, f->mantissa - exponent));
        int whole = (exponent + f->bias - 1) << f->mantissa;
        code = whole > 0xff ? f->most + 1 : (int)steps + whole;
    }
    if (code > f->most) {
        if (!saturate && f->nan == 0x80) return 0x80;
        code = saturate ? f->most : f->infinity >= 0 ? f->infinity : f->nan;
    }
    if (f->nan == 0x80 && code == 0) return 0;
    return (uint8_t)(sign | code);
}

void tensor_small_unpack(enum tensor_dtype t, const uint8_t *from, size_t n, uint8_t *to)
{
    int bits = tensor_small_bits(t), per_byte = bits ? 8 / bits : 1, mask = (1 << bits) - 1, top = 1 << (bits - 1);
    bool has_sign = t == TENSOR_I4 || t == TENSOR_I2;
    for (size_t i = 0; i < n; i++) {
        int v = from[i / (size_t)per_byte] >> (int)(i % (size_t)per_byte) * bits & mask;
        to[i] = (uint8_t)(has_sign && v & top ? v - (1 << bits) : v);
    }
}
