/* Fourier transforms of doubles. */
#define CML_DOUBLES
#include "fourier_kernels.c"
