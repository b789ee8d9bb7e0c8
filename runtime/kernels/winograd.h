/* Winograd's F(4 x 4, 3 x 3) uses the points 0, p, -p, q, -q and infinity, of which its transformations are made (winograd.c those of weights,
 * conv_kernels.c the others). These leave half of the errors that 1 and 2 leave, and the coefficients of images are exact in floats. */
#ifndef CML_WINOGRAD_H
#define CML_WINOGRAD_H

#define CML_WINOGRAD_P .625f
#define CML_WINOGRAD_Q 1.5f

#endif
