/* Pictures as inputs: PNG, JPEG and PNM (P2, P3, P5, P6) files, recognised by content. */
#ifndef CML_IMAGE_H
#define CML_IMAGE_H

#include "span.h"

typedef struct cml_image {
  uint32_t width, height;
  unsigned channels; /* 1: grey, 3: red, green, blue */
  uint8_t *pixels;   /* height x width x channels; owned: cml_image_free */
} cml_image;

/* Decodes to `channels` (1 or 3): grey is repeated, colours become luma (ITU-R BT.601). Alpha is blended onto black; 16-bit
 * samples are scaled to 8. CML_LIMIT above 2^28 pixels. */
CML_API CML_NODISCARD cml_status cml_image_decode(cml_span bytes, unsigned channels, cml_image *out, cml_error *err);
/* The same for a file. */
CML_API CML_NODISCARD cml_status cml_image_read(const char *path, unsigned channels, cml_image *out, cml_error *err);
/* Bilinear with half-pixel centres, without antialiasing. */
CML_API CML_NODISCARD cml_status cml_image_resize(const cml_image *from, uint32_t width, uint32_t height, cml_image *out, cml_error *err);
CML_API void cml_image_free(cml_image *image); /* NULL is accepted */

#endif
