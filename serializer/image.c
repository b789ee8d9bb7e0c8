/* libpng and libjpeg do the work; PNM is a header of numbers and then samples. Everything is decoded as grey or RGB of 8 bits
 * and then brought to the channels that the caller wants. */
#include "image.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>
#include <png.h>

#include "mapping.h"

enum { MAX_PIXELS = 1 << 28 };

static cml_status allocate(cml_image *image, cml_error *err) {
  uint64_t pixels = (uint64_t)image->width * image->height;
  if (!pixels) return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the picture is empty");
  if (pixels > MAX_PIXELS) return cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "the picture has %llu pixels", (unsigned long long)pixels);
  image->pixels = malloc(pixels * image->channels);
  return image->pixels ? CML_OK : cml_fail_memory(err);
}

void cml_image_free(cml_image *image) {
  if (!image) return;
  free(image->pixels);
  *image = (cml_image){0};
}

/* ---- PNG ---- */

static cml_status decode_png(cml_span bytes, cml_image *out, cml_error *err) {
  png_image png = {.version = PNG_IMAGE_VERSION};
  if (!png_image_begin_read_from_memory(&png, bytes.data, bytes.size))
    return cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the PNG cannot be read: %s", png.message);
  png.flags |= PNG_IMAGE_FLAG_16BIT_sRGB; /* 16 bits are as those of 8, only finer */
  out->width = png.width;
  out->height = png.height;
  out->channels = png.format & PNG_FORMAT_FLAG_COLOR ? 3 : 1;
  png.format = out->channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  png_color black = {0, 0, 0};
  cml_status status = allocate(out, err);
  if (!status && !png_image_finish_read(&png, &black, out->pixels, 0, NULL))
    status = cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the PNG cannot be read: %s", png.message);
  png_image_free(&png);
  return status;
}

/* ---- JPEG ---- */

typedef struct jpeg_state {
  struct jpeg_decompress_struct decoder;
  struct jpeg_error_mgr errors;
  jmp_buf failed;
  char message[JMSG_LENGTH_MAX];
} jpeg_state;

static void jpeg_failed(j_common_ptr info) {
  jpeg_state *s = info->client_data;
  info->err->format_message(info, s->message);
  longjmp(s->failed, 1);
}

static void jpeg_silent(j_common_ptr info) { (void)info; }

static cml_status decode_jpeg(cml_span bytes, cml_image *out, cml_error *err) {
  jpeg_state *s = calloc(1, sizeof *s);
  cml_status volatile status = CML_OK;
  if (!s) return cml_fail_memory(err);
  s->decoder.err = jpeg_std_error(&s->errors);
  s->errors.error_exit = jpeg_failed;
  s->errors.output_message = jpeg_silent;
  s->decoder.client_data = s;
  if (setjmp(s->failed)) {
    status = cml_fail(err, CML_INVALID, CML_NO_OFFSET, "the JPEG cannot be read: %s", s->message);
  } else {
    jpeg_create_decompress(&s->decoder);
    jpeg_mem_src(&s->decoder, bytes.data, bytes.size);
    jpeg_read_header(&s->decoder, TRUE);
    out->channels = s->decoder.jpeg_color_space == JCS_GRAYSCALE ? 1 : 3;
    s->decoder.out_color_space = out->channels == 3 ? JCS_RGB : JCS_GRAYSCALE;
    jpeg_start_decompress(&s->decoder);
    out->width = s->decoder.output_width;
    out->height = s->decoder.output_height;
    status = allocate(out, err);
    while (!status && s->decoder.output_scanline < s->decoder.output_height) {
      JSAMPROW row = out->pixels + (size_t)s->decoder.output_scanline * out->width * out->channels;
      jpeg_read_scanlines(&s->decoder, &row, 1);
    }
  }
  jpeg_destroy_decompress(&s->decoder);
  free(s);
  return status;
}

/* ---- PNM ---- */

/* The next number, over white space and comments; -1 when there is none. */
static int32_t pnm_number(cml_cursor *c) {
  uint8_t b = cml_cursor_u8(c);
  while (!c->failed && (isspace(b) || b == '#')) {
    if (b == '#')
      while (!c->failed && b != '\n') b = cml_cursor_u8(c);
    b = cml_cursor_u8(c);
  }
  if (c->failed || !isdigit(b)) return -1;
  int32_t n = 0;
  for (; !c->failed && isdigit(b) && n < 100000000; b = cml_cursor_left(c) ? cml_cursor_u8(c) : ' ') n = n * 10 + b - '0';
  return n;
}

static cml_status decode_pnm(cml_span bytes, cml_image *out, cml_error *err) {
  cml_cursor c = cml_cursor_over(bytes);
  cml_cursor_u8(&c);
  uint8_t kind = cml_cursor_u8(&c);
  int32_t width = pnm_number(&c), height = pnm_number(&c), highest = pnm_number(&c);
  if (width <= 0 || height <= 0 || highest <= 0 || highest > 65535)
    return cml_fail(err, CML_INVALID, cml_cursor_offset(&c), "the PNM header is not complete");
  *out = (cml_image){.width = (uint32_t)width, .height = (uint32_t)height, .channels = kind == '3' || kind == '6' ? 3 : 1};
  bool text = kind == '2' || kind == '3';
  unsigned sample = text || highest < 256 ? 1 : 2; /* bytes; of text, at least */
  uint64_t count = (uint64_t)width * (uint64_t)height * out->channels;
  if (count * sample > cml_cursor_left(&c) + (text ? 1 : 0)) return cml_fail(err, CML_INVALID, bytes.size, "the PNM ends early");
  CML_TRY(allocate(out, err));
  for (uint64_t i = 0; i < count; i++) {
    int32_t v;
    if (text) v = pnm_number(&c);
    else v = cml_cursor_u8(&c), v = sample == 2 ? v << 8 | cml_cursor_u8(&c) : v;
    if (v < 0 || v > highest) return cml_fail(err, CML_INVALID, cml_cursor_offset(&c), "a PNM sample is not in 0 to %d", highest);
    out->pixels[i] = (uint8_t)(((int64_t)v * 255 + highest / 2) / highest);
  }
  return CML_OK;
}

/* ---- channels ---- */

static cml_status convert(cml_image *image, unsigned channels, cml_error *err) {
  if (image->channels == channels) return CML_OK;
  cml_image to = {.width = image->width, .height = image->height, .channels = channels};
  CML_TRY(allocate(&to, err));
  size_t n = (size_t)to.width * to.height;
  for (size_t i = 0; i < n; i++) {
    const uint8_t *p = image->pixels + i * image->channels;
    if (channels == 3) memset(to.pixels + 3 * i, *p, 3);
    else to.pixels[i] = (uint8_t)((299 * p[0] + 587 * p[1] + 114 * p[2] + 500) / 1000);
  }
  cml_image_free(image);
  *image = to;
  return CML_OK;
}

cml_status cml_image_decode(cml_span b, unsigned channels, cml_image *out, cml_error *err) {
  cml_image image = {0};
  cml_status status;
  if (b.size >= 8 && !memcmp(b.data, "\x89PNG\r\n\x1a\n", 8)) status = decode_png(b, &image, err);
  else if (b.size >= 3 && !memcmp(b.data, "\xff\xd8\xff", 3)) status = decode_jpeg(b, &image, err);
  else if (b.size >= 3 && b.data[0] == 'P' && strchr("2356", b.data[1]) && b.data[1]) status = decode_pnm(b, &image, err);
  else status = cml_fail(err, CML_UNSUPPORTED, 0, "not a picture that cml reads: PNG, JPEG, or PNM (P2, P3, P5, P6)");
  if (!status) status = convert(&image, channels, err);
  if (status) cml_image_free(&image);
  else *out = image;
  return status;
}

cml_status cml_image_read(const char *path, unsigned channels, cml_image *out, cml_error *err) {
  cml_mapping *mapping;
  CML_TRY(cml_mapping_open(path, &mapping, err));
  cml_status status = cml_image_decode(cml_mapping_span(mapping), channels, out, err);
  cml_mapping_unref(mapping);
  return status;
}

/* ---- size ---- */

typedef struct sample_point {
  uint32_t low, high;
  float weight; /* of high */
} sample_point;

static sample_point sample_at(uint32_t i, uint32_t from, uint32_t to) {
  float x = ((float)i + 0.5f) * (float)from / (float)to - 0.5f;
  if (x < 0) x = 0;
  uint32_t low = (uint32_t)x;
  if (low > from - 1) low = from - 1;
  return (sample_point){low, low + 1 < from ? low + 1 : low, x - (float)low};
}

cml_status cml_image_resize(const cml_image *from, uint32_t width, uint32_t height, cml_image *out, cml_error *err) {
  cml_image to = {.width = width, .height = height, .channels = from->channels};
  unsigned c = from->channels;
  CML_TRY(allocate(&to, err));
  for (uint32_t y = 0; y < height; y++) {
    sample_point v = sample_at(y, from->height, height);
    const uint8_t *a = from->pixels + (size_t)v.low * from->width * c, *b = from->pixels + (size_t)v.high * from->width * c;
    for (uint32_t x = 0; x < width; x++) {
      sample_point h = sample_at(x, from->width, width);
      for (unsigned k = 0; k < c; k++) {
        float top = (float)a[h.low * c + k] + h.weight * (float)(a[h.high * c + k] - a[h.low * c + k]);
        float bottom = (float)b[h.low * c + k] + h.weight * (float)(b[h.high * c + k] - b[h.low * c + k]);
        to.pixels[((size_t)y * width + x) * c + k] = (uint8_t)lrintf(top + v.weight * (bottom - top));
      }
    }
  }
  *out = to;
  return CML_OK;
}
