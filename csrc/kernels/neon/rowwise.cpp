// Row operations: the shared bodies over this instruction set's lanes.
#include "../lanes/rowwise.h"

#include "../impl.h"
#include "lanes.h"

namespace quintet::neon {

void make_rows(const float* x, size_t ldx, int num_rows, int width, const RowsOut& out) {
  lanes::make_rows<Lanes>(x, ldx, num_rows, width, out);
}

void rms_norm(const float* x, const float* weight, int width, float eps, float* y) {
  lanes::rms_norm<Lanes>(x, weight, width, eps, y);
}

void add(const float* x, int width, float* y) { lanes::add<Lanes>(x, width, y); }

void silu_mul(const float* gate, const float* up, int width, float* y) { lanes::silu_mul<Lanes>(gate, up, width, y); }

void layer_norm(const float* x, const float* weight, const float* bias, int width, float eps, float* y) {
  lanes::layer_norm<Lanes>(x, weight, bias, width, eps, y);
}

void gelu(const float* x, const float* up, int width, float* y) { lanes::gelu<Lanes>(x, up, width, y); }

void tanh(const float* x, int width, float* y) { lanes::tanh<Lanes>(x, width, y); }

void gelu_tanh(const float* x, const float* up, int width, float* y) { lanes::gelu_tanh<Lanes>(x, up, width, y); }

void swiglu_clamped(const float* gate, const float* up, float limit, int width, float* y) {
  lanes::swiglu_clamped<Lanes>(gate, up, limit, width, y);
}

void scale(const float* x, float factor, int width, float* y) { lanes::scale<Lanes>(x, factor, width, y); }

void add_scaled(const float* x, float factor, int width, float* y) { lanes::add_scaled<Lanes>(x, factor, width, y); }

void softcap(const float* x, float cap, int width, float* y) { lanes::softcap<Lanes>(x, cap, width, y); }

void rope(float* x, int num_heads, const RopeArgs& args) { lanes::rope<Lanes>(x, num_heads, args); }

}  // namespace quintet::neon
