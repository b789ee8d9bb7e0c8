/* Sampling an image at given points: crop_resize, resample, affine.
 *
 * Runs of points become four neighbours with weights each, found once and used for all channels (kernels.h: sampling). What
 * differs is where points come from (a box and a grid, coordinates, a matrix) and what stands outside the image: a padding value,
 * the border, or the image mirrored. */
#include <math.h>

#include "elementwise.h"
#include "families.h"
#include "image.h"
#include "kernels.h"

/* ---- points ---- */

enum padding { CONSTANT, BORDER, REFLECTION, SYMMETRIC };

/* A whole number to an index by the rule of a mirror. Any double is allowed. */
static int32_t mirrored(double v, int32_t n, enum padding padding) {
  double last = n - 1;
  if (v >= 0 && v <= last) return (int32_t)v;
  if (!(v == v)) return 0;
  if (isinf(v)) return v < 0 ? 0 : n - 1;
  if (padding == REFLECTION) {
    if (n == 1) return 0;
    double r = fmod(fabs(v), 2 * last);
    return (int32_t)(r > last ? 2 * last - r : r);
  }
  double r = fmod(v < 0 ? -v - 1 : v, 2 * (double)n);
  return (int32_t)(r > last ? 2 * (double)n - 1 - r : r);
}

/* Mirrors turn each neighbour's index by itself. */
static void mirror_axis(const double *at, size_t n, int32_t size, enum padding padding, bool nearest, cml_axis_points *to) {
  *to = (cml_axis_points){0};
  for (size_t i = 0; i < n; i++) {
    double low = floor(nearest ? at[i] + 0.5 : at[i]);
    float part = nearest || !isfinite(at[i]) ? 0 : (float)(at[i] - low);
    for (int k = 0; k < 2; k++) to->index[k][i] = mirrored(low + k, size, padding);
    to->weight[0][i] = 1 - part;
    to->weight[1][i] = part;
    to->outside[i] = 0;
  }
}

/* From x's planes of height x width, to planes of `step` elements. */
typedef struct sampler {
  const cml_tensor *x;
  cml_tensor *out;
  const cml_kernels *kernels;
  int64_t channels, height, width, step;
  float pad;
  enum padding padding;
  bool nearest;
} sampler;

/* Coordinates of output pixels that follow one another in an image, in pixels of x. */
typedef struct coordinates_of_run {
  double rows[CML_SAMPLES], columns[CML_SAMPLES];
} coordinates_of_run;

static void points_along(const sampler *s, const double *at, size_t n, int64_t size, cml_axis_points *to) {
  if (s->padding >= REFLECTION) mirror_axis(at, n, (int32_t)size, s->padding, s->nearest, to);
  else s->kernels->sample_axis(at, n, (int32_t)size, s->padding == BORDER, s->nearest, to);
}

/* n pixels of all channels of an image; out: the first one's place in channel 0. */
static void sample_run(const sampler *s, const coordinates_of_run *at, size_t n, int64_t image, int64_t out) {
  cml_axis_points rows, columns;
  cml_plane_points points;
  points_along(s, at->rows, n, s->height, &rows);
  points_along(s, at->columns, n, s->width, &columns);
  s->kernels->sample_points(&rows, &columns, n, (int32_t)s->width, s->pad, &points);
  const size_t bytes = cml_dtype_bits(s->x->dtype) / 8;
  const char *from = (const char *)s->x->data + (size_t)(image * s->channels * s->height * s->width) * bytes;
  char *to = (char *)s->out->data + (size_t)out * bytes;
  for (int64_t c = 0; c < s->channels; c++, from += (size_t)(s->height * s->width) * bytes, to += (size_t)s->step * bytes)
    s->kernels->sample_plane(&points, n, from, s->x->dtype == CML_F16, to);
}

static sampler sampler_of(cml_call *c, int64_t step, float pad) {
  const cml_tensor *x = cml_arg(c, 0);
  return (sampler){.x = x, .out = c->outs[0], .kernels = cml_kernels_get(), .channels = x->dims[1], .height = x->dims[2], .width = x->dims[3], .step = step, .pad = pad};
}

static cml_status check_image(const cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0);
  if (x->rank < 0) return CML_OK;
  if (x->rank != 4) return cml_call_fail(c, err, "x must have rank 4, found %d", (int)x->rank);
  if (x->dims[2] == 0 || x->dims[3] == 0) return cml_call_fail(c, err, "x is empty");
  if (x->dims[2] > 0 && x->dims[3] > INT32_MAX / x->dims[2])
    return cml_call_fail(c, err, "images of %lld x %lld have too many pixels", (long long)x->dims[2], (long long)x->dims[3]);
  return CML_OK;
}

/* ---- crop_resize ---- */

enum box_mode { CORNERS_HEIGHT_FIRST, CORNERS_WIDTH_FIRST, CENTER_SIZE_HEIGHT_FIRST, CENTER_SIZE_WIDTH_FIRST };
static const char *const box_modes[] = {"CORNERS_HEIGHT_FIRST", "CORNERS_WIDTH_FIRST", "CENTER_SIZE_HEIGHT_FIRST", "CENTER_SIZE_WIDTH_FIRST", NULL};

#define X_PARAM(group) {"x", CML_M_FLOAT, 0, group}
#define CROP_OPTIONS                                                        \
  {"target_height", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0},            \
  {"target_width", CML_MASK(I32), CML_OPTIONAL | CML_CONST, 0},             \
  {"normalized_coordinates", CML_M_BOOL, CML_OPTIONAL | CML_CONST, 0},      \
  {"spatial_scale", CML_MASK(F32), CML_OPTIONAL | CML_CONST, 0},            \
  {"box_coordinate_mode", CML_M_STRING, CML_OPTIONAL | CML_CONST, 0},       \
  {"sampling_mode", CML_M_STRING, CML_OPTIONAL | CML_CONST, 0}
#define PAD_VALUE {"pad_value", CML_M_FLOAT, CML_OPTIONAL | CML_CONST, 1}
static const cml_param crop_resize_15[] = {X_PARAM(1), {"roi", CML_M_FLOAT, 0, 1}, CROP_OPTIONS};
static const cml_param crop_resize_16[] = {X_PARAM(1), {"roi", CML_M_FLOAT, 0, 1}, CROP_OPTIONS, PAD_VALUE};
static const cml_param crop_resize_17[] = {X_PARAM(1), {"boxes", CML_M_FLOAT | CML_MASK(U16), 0, 0},
                                           {"box_indices", CML_MASK(U16) | CML_MASK(I32), CML_OPTIONAL, 0}, CROP_OPTIONS, PAD_VALUE};

/* Checks the options, which begin at parameter `first`; gives the target's size. */
static cml_status crop_options(const cml_call *c, unsigned first, int64_t size[2], cml_error *err) {
  CML_TRY(cml_check_scalars(c, ~UINT32_C(0) << first, err));
  CML_TRY(check_image(c, err));
  size[0] = cml_arg_int(c, first, 1);
  size[1] = cml_arg_int(c, first + 1, 1);
  if (size[0] < 1 || size[1] < 1) return cml_call_fail(c, err, "a target of %lld x %lld is not possible", (long long)size[0], (long long)size[1]);
  if (cml_word_index(cml_arg_text(c, first + 4, box_modes[0]), box_modes) < 0)
    return cml_call_fail(c, err, "box_coordinate_mode '%s' is not known", cml_arg_text(c, first + 4, ""));
  if (cml_grid_by_name(cml_arg_text(c, first + 5, "DEFAULT")) < 0)
    return cml_call_fail(c, err, "sampling_mode '%s' is not known", cml_arg_text(c, first + 5, ""));
  return CML_OK;
}

/* roi: [N, 1, 4, 1, 1] applies each box to all images, [N, 1, 5, 1, 1] begins with the image's index. */
static cml_status infer_crop_resize_15(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *roi = cml_arg(c, 1);
  int64_t size[2];
  CML_TRY(crop_options(c, 2, size, err));
  if (roi->rank >= 0 && roi->rank != 5) return cml_call_fail(c, err, "roi must have rank 5, found %d", (int)roi->rank);
  int64_t dims[5] = {-1, -1, -1, size[0], size[1]};
  if (roi->rank == 5) {
    bool good = (roi->dims[2] == 4 || roi->dims[2] == 5 || roi->dims[2] < 0) && (roi->dims[1] == 1 || roi->dims[1] < 0) &&
                (roi->dims[3] == 1 || roi->dims[3] < 0) && (roi->dims[4] == 1 || roi->dims[4] < 0);
    char text[128];
    if (!good) return cml_call_fail(c, err, "roi has shape %s, expected [N, 1, 4 or 5, 1, 1]", cml_shape_text(roi, text, sizeof text));
    dims[0] = roi->dims[0];
    dims[1] = roi->dims[2] == 5 ? 1 : roi->dims[2] == 4 && x->rank == 4 ? x->dims[0] : CML_DIM_UNKNOWN;
    /* coremltools declares all images also where each box names one; then run says what the output is. */
    if (roi->dims[2] == 5 && c->declared && c->declared[0].rank == 5 && c->declared[0].dims[1] > 1) dims[1] = CML_DIM_UNKNOWN;
  }
  if (x->rank == 4) dims[2] = x->dims[1];
  cml_out_set(c, 0, x->dtype, 5, dims);
  return cml_check_output(c, 0, err);
}

static cml_status infer_crop_resize_17(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *boxes = cml_arg(c, 1), *indices = cml_arg(c, 2);
  int64_t size[2];
  CML_TRY(crop_options(c, 3, size, err));
  if (boxes->rank >= 0 && (boxes->rank != 2 || (boxes->dims[1] >= 0 && boxes->dims[1] != 4)))
    return cml_call_fail(c, err, "boxes must have shape [N, 4]");
  int64_t count = boxes->rank == 2 ? boxes->dims[0] : CML_DIM_UNKNOWN;
  if (indices && indices->rank >= 0 && (indices->rank != 1 || (indices->dims[0] >= 0 && count >= 0 && indices->dims[0] != count)))
    return cml_call_fail(c, err, "box_indices must have shape [%lld]", (long long)count);
  if (!indices && x->rank == 4 && x->dims[0] >= 0 && count > x->dims[0])
    return cml_call_fail(c, err, "%lld boxes for %lld images need box_indices", (long long)count, (long long)x->dims[0]);
  if (cml_arg_bool(c, 5, false) && boxes->dtype == CML_U16) return cml_call_fail(c, err, "normalized boxes must be fp16 or fp32");
  int64_t dims[4] = {count, x->rank == 4 ? x->dims[1] : CML_DIM_UNKNOWN, size[0], size[1]};
  cml_out_set(c, 0, x->dtype, 4, dims);
  return cml_check_output(c, 0, err);
}

typedef struct crop_job {
  sampler sampler;
  cml_grid grid;
  int64_t size[2];
  double scale[2]; /* coordinates to pixels */
  enum box_mode mode;
} crop_job;

/* First and last point of the box along height and width, in pixels. */
static void box_ends(const crop_job *j, const double box[4], double start[2], double end[2]) {
  bool width_first = j->mode == CORNERS_WIDTH_FIRST || j->mode == CENTER_SIZE_WIDTH_FIRST;
  for (int axis = 0; axis < 2; axis++) {
    double a = box[axis ^ width_first], b = box[2 + (axis ^ width_first)];
    bool center = j->mode >= CENTER_SIZE_HEIGHT_FIRST;
    start[axis] = (center ? a - b / 2 : a) * j->scale[axis];
    end[axis] = (center ? a + b / 2 : b) * j->scale[axis];
  }
}

/* Both ends belong to the box; one that runs backwards is sampled backwards. Points outside the image are padding: a point next to none of it. */
static double box_point(const crop_job *j, int axis, int64_t i, double start, double end) {
  double length = fabs(end - start) + 1, step = cml_grid_point(j->grid, i, length, j->size[axis]);
  double last = (double)((axis ? j->sampler.width : j->sampler.height) - 1);
  /* Core ML turns such a box round under UNALIGN_CORNERS and moves it inside: the one value that coremltools' tests record. */
  if (end < start && j->grid == CML_GRID_UNALIGN_CORNERS) start = fmax(0, fmin(end, last + 1 - length));
  double v = end < start && j->grid != CML_GRID_UNALIGN_CORNERS ? start - step : start + step;
  return v >= 0 && v <= last ? v : -1;
}

static void crop_box(const crop_job *j, int64_t image, const double box[4], int64_t out) {
  double start[2], end[2];
  coordinates_of_run at = {0};
  size_t n = 0;
  box_ends(j, box, start, end);
  for (int64_t y = 0; y < j->size[0]; y++) {
    double row = box_point(j, 0, y, start[0], end[0]);
    for (int64_t x = 0; x < j->size[1]; x++) {
      at.rows[n] = row;
      at.columns[n] = box_point(j, 1, x, start[1], end[1]);
      if (++n < CML_SAMPLES) continue;
      sample_run(&j->sampler, &at, n, image, out);
      out += (int64_t)n;
      n = 0;
    }
  }
  if (n) sample_run(&j->sampler, &at, n, image, out);
}

static crop_job crop_job_of(cml_call *c, unsigned first) {
  const cml_tensor *x = cml_arg(c, 0);
  crop_job j = {.size = {cml_arg_int(c, first, 1), cml_arg_int(c, first + 1, 1)}};
  j.sampler = sampler_of(c, j.size[0] * j.size[1], c->op->param_count > first + 6 ? (float)cml_arg_float(c, first + 6, 0) : 0);
  j.mode = (enum box_mode)cml_word_index(cml_arg_text(c, first + 4, box_modes[0]), box_modes);
  j.grid = (cml_grid)cml_grid_by_name(cml_arg_text(c, first + 5, "DEFAULT"));
  bool normalized = cml_arg_bool(c, first + 2, false);
  for (int axis = 0; axis < 2; axis++)
    j.scale[axis] = cml_arg_float(c, first + 3, 1) * (normalized ? (double)(x->dims[2 + axis] - 1) : 1);
  return j;
}

static cml_status image_index(const cml_call *c, double v, int64_t images, int64_t *out, cml_error *err) {
  if (!(v >= 0 && v < (double)images)) return cml_call_fail(c, err, "a box is for image %g of %lld", v, (long long)images);
  *out = (int64_t)v;
  return CML_OK;
}

/* Boxes of `fields` numbers, the last four of which are the box; each is cut from one image, or from all `images`. */
typedef struct boxes_job {
  crop_job crop;
  const cml_tensor *boxes, *indices; /* whose image: the first of five fields, the index, or (neither) the box's own number */
  int64_t fields, images;
  bool all;
} boxes_job;

static double image_of(const boxes_job *j, int64_t n) {
  if (j->fields == 5) return cml_tensor_get(j->boxes, n * j->fields);
  return j->indices ? cml_tensor_get(j->indices, n) : (double)n;
}

static void crop_boxes(void *context, size_t begin, size_t end) {
  const boxes_job *j = context;
  for (int64_t t = (int64_t)begin; t < (int64_t)end; t++) {
    int64_t n = t / j->images, image = j->all ? t % j->images : (int64_t)image_of(j, n);
    double box[4];
    for (int64_t k = 0; k < 4; k++) box[k] = cml_tensor_get(j->boxes, n * j->fields + j->fields - 4 + k);
    crop_box(&j->crop, image, box, t * j->crop.sampler.channels * j->crop.sampler.step);
  }
}

static void run_boxes(cml_call *c, const boxes_job *j) {
  int64_t count = j->boxes->dims[0] * j->images;
  if (cml_tensor_count(c->outs[0])) cml_parallel(c->pool, (size_t)count, (size_t)(2048 / j->crop.sampler.step + 1), crop_boxes, (void *)(uintptr_t)j);
}

static cml_status run_crop_resize_15(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *roi = cml_arg(c, 1);
  boxes_job j = {.crop = crop_job_of(c, 2), .boxes = roi, .fields = roi->dims[2], .images = roi->dims[2] == 5 ? 1 : x->dims[0], .all = roi->dims[2] == 4};
  if (c->outs[0]->dims[1] < 0) {
    c->outs[0]->dims[1] = 1;
    CML_TRY(cml_out_alloc(c, 0, err));
  }
  int64_t image;
  for (int64_t n = 0; n < roi->dims[0] && j.fields == 5; n++) CML_TRY(image_index(c, image_of(&j, n), x->dims[0], &image, err));
  run_boxes(c, &j);
  return CML_OK;
}

static cml_status run_crop_resize_17(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *boxes = cml_arg(c, 1);
  boxes_job j = {.crop = crop_job_of(c, 3), .boxes = boxes, .indices = cml_arg(c, 2), .fields = 4, .images = 1};
  int64_t image;
  for (int64_t n = 0; n < boxes->dims[0]; n++) CML_TRY(image_index(c, image_of(&j, n), x->dims[0], &image, err));
  run_boxes(c, &j);
  return CML_OK;
}

/* ---- resample and affine ---- */

#define SAMPLING                                                  \
  {"sampling_mode", CML_M_STRING, CML_CONST, 0},                  \
  {"padding_mode", CML_M_STRING, CML_CONST, 0},                   \
  {"padding_value", CML_M_FLOAT, CML_CONST, 1},                   \
  {"coordinates_mode", CML_M_STRING, CML_CONST, 0},               \
  {"align_corners", CML_M_BOOL, CML_CONST, 0}
#define INT_COORDINATES (CML_MASK(I8) | CML_MASK(U8) | CML_MASK(I16) | CML_MASK(U16) | CML_MASK(I32))
static const cml_param resample_15[] = {X_PARAM(1), {"coordinates", CML_MASK(I32) | CML_MASK(F32), 0, 0}, SAMPLING};
static const cml_param resample_16[] = {X_PARAM(1), {"coordinates", CML_MASK(I32) | CML_M_FLOAT, 0, 0}, SAMPLING};
static const cml_param resample_17[] = {X_PARAM(1), {"coordinates", INT_COORDINATES | CML_M_FLOAT, 0, 0}, SAMPLING};
static const cml_param affine_params[] = {
    X_PARAM(1), {"transform_matrix", CML_M_FLOAT, 0, 1}, {"output_height", CML_MASK(I32), CML_CONST, 0},
    {"output_width", CML_MASK(I32), CML_CONST, 0}, SAMPLING};

enum coordinates { UNNORMALIZED, MINUS_ONE_TO_ONE, ZERO_TO_ONE };
static const char *const samplings[] = {"bilinear", "nearest", NULL};
static const char *const paddings[] = {"constant", "border", "reflection", "symmetric", NULL};
static const char *const coordinate_modes[] = {"unnormalized", "normalized_minus_one_to_one", "normalized_zero_to_one", NULL};

/* A word of the parameter, which must be in the list. */
static cml_status check_word(const cml_call *c, unsigned param, const char *const *words, cml_error *err) {
  const char *word = cml_arg_text(c, param, "");
  if (cml_word_index(word, words) < 0) return cml_call_fail(c, err, "%s '%s' is not known", c->op->params[param].name, word);
  return CML_OK;
}

/* Coordinates times `scale` plus `shift` are pixels. */
typedef struct axis_of_pixels {
  double scale, shift;
} axis_of_pixels;

static axis_of_pixels pixels_along(int64_t n, enum coordinates mode, bool align) {
  double scale = (double)(align ? n - 1 : n);
  if (mode == UNNORMALIZED) return (axis_of_pixels){1, 0};
  if (mode == ZERO_TO_ONE) return (axis_of_pixels){scale, align ? 0 : -0.5};
  return (axis_of_pixels){scale / 2, (double)(n - 1) / 2};
}

static cml_status infer_resample(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *coordinates = cml_arg(c, 1);
  CML_TRY(cml_check_scalars(c, ~3u, err));
  CML_TRY(check_image(c, err));
  CML_TRY(check_word(c, 2, samplings, err));
  CML_TRY(check_word(c, 3, paddings, err));
  CML_TRY(check_word(c, 5, coordinate_modes, err));
  if (coordinates->rank >= 0 && coordinates->rank != 4) return cml_call_fail(c, err, "coordinates must have rank 4, found %d", (int)coordinates->rank);
  bool known = coordinates->rank == 4;
  if (known && coordinates->dims[3] >= 0 && coordinates->dims[3] != 2)
    return cml_call_fail(c, err, "coordinates must end in 2, found %lld", (long long)coordinates->dims[3]);
  if (known && x->rank == 4 && coordinates->dims[0] >= 0 && x->dims[0] >= 0 && coordinates->dims[0] != x->dims[0])
    return cml_call_fail(c, err, "%lld images, and coordinates for %lld", (long long)x->dims[0], (long long)coordinates->dims[0]);
  int64_t dims[4] = {x->rank == 4 ? x->dims[0] : -1, x->rank == 4 ? x->dims[1] : -1, known ? coordinates->dims[1] : -1, known ? coordinates->dims[2] : -1};
  if (known && dims[0] < 0) dims[0] = coordinates->dims[0];
  cml_out_set(c, 0, x->dtype, 4, dims);
  return cml_check_output(c, 0, err);
}

typedef struct resample_job {
  sampler sampler;
  const cml_tensor *coordinates; /* or the matrix */
  axis_of_pixels x, y;
  int64_t rows, columns;         /* of the output, and whether its corners are its grid's, for a matrix */
  bool align;
} resample_job;

/* Samples the pixels of all images from begin to end; coordinates(job, image, place in the image, count, to) says where. */
static void each_run(const resample_job *j, size_t begin, size_t end, void (*coordinates)(const resample_job *, int64_t, int64_t, size_t, coordinates_of_run *)) {
  int64_t step = j->sampler.step;
  coordinates_of_run at = {0};
  for (int64_t t = (int64_t)begin; t < (int64_t)end;) {
    int64_t image = t / step, first = t % step, n = step - first;
    if (n > (int64_t)end - t) n = (int64_t)end - t;
    if (n > CML_SAMPLES) n = CML_SAMPLES;
    coordinates(j, image, first, (size_t)n, &at);
    for (int64_t i = 0; i < n; i++) {
      at.rows[i] = at.rows[i] * j->y.scale + j->y.shift;
      at.columns[i] = at.columns[i] * j->x.scale + j->x.shift;
    }
    sample_run(&j->sampler, &at, (size_t)n, image, image * j->sampler.channels * step + first);
    t += n;
  }
}

static void given_coordinates(const resample_job *j, int64_t image, int64_t first, size_t n, coordinates_of_run *to) {
  const cml_tensor *c = j->coordinates;
  int64_t at = (image * j->sampler.step + first) * 2;
  float wide[2 * CML_SAMPLES];
  const float *pairs = c->dtype == CML_F32 ? (const float *)c->data + at : wide;
  if (c->dtype == CML_F16) j->sampler.kernels->f16_to_f32((const cml_f16 *)c->data + at, wide, 2 * n);
  if (c->dtype == CML_F16 || c->dtype == CML_F32)
    for (size_t i = 0; i < n; i++) to->columns[i] = pairs[2 * i], to->rows[i] = pairs[2 * i + 1];
  else
    for (size_t i = 0; i < n; i++) {
      to->columns[i] = cml_tensor_get(c, at + 2 * (int64_t)i);
      to->rows[i] = cml_tensor_get(c, at + 2 * (int64_t)i + 1);
    }
}

static void resample_tasks(void *context, size_t begin, size_t end) { each_run(context, begin, end, given_coordinates); }

static void place_pixels(resample_job *j, enum coordinates mode, bool align) {
  j->x = pixels_along(j->sampler.width, mode, align);
  j->y = pixels_along(j->sampler.height, mode, align);
}

/* Pixels of all channels that are work enough for a thread of its own. */
static size_t grain_of(const sampler *s) { return 2048 / (size_t)(s->channels ? s->channels : 1) + CML_SAMPLES; }

static cml_status run_resample(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *coordinates = cml_arg(c, 1);
  resample_job j = {.coordinates = coordinates};
  j.sampler = sampler_of(c, coordinates->dims[1] * coordinates->dims[2], (float)cml_arg_float(c, 4, 0));
  j.sampler.padding = (enum padding)cml_word_index(cml_arg_text(c, 3, ""), paddings);
  j.sampler.nearest = cml_word_index(cml_arg_text(c, 2, ""), samplings) == 1;
  place_pixels(&j, (enum coordinates)cml_word_index(cml_arg_text(c, 5, ""), coordinate_modes), cml_arg_bool(c, 6, true));
  cml_parallel(c->pool, (size_t)(coordinates->dims[0] * j.sampler.step), grain_of(&j.sampler), resample_tasks, &j);
  return CML_OK;
}

static cml_status infer_affine(cml_call *c, cml_error *err) {
  const cml_tensor *x = cml_arg(c, 0), *matrix = cml_arg(c, 1);
  CML_TRY(cml_check_scalars(c, ~3u, err));
  CML_TRY(check_image(c, err));
  CML_TRY(check_word(c, 4, (const char *const[]){"bilinear", NULL}, err));
  CML_TRY(check_word(c, 5, (const char *const[]){"constant", NULL}, err));
  CML_TRY(check_word(c, 7, (const char *const[]){"normalized_minus_one_to_one", NULL}, err));
  if (cml_arg_float(c, 6, 0) != 0) return cml_call_fail(c, err, "padding_value must be 0");
  int64_t height = cml_arg_int(c, 2, 0), width = cml_arg_int(c, 3, 0);
  if (height < 1 || width < 1) return cml_call_fail(c, err, "an output of %lld x %lld is not possible", (long long)height, (long long)width);
  if (matrix->rank >= 0 && (matrix->rank != 2 || (matrix->dims[1] >= 0 && matrix->dims[1] != 6)))
    return cml_call_fail(c, err, "transform_matrix must have shape [B or 1, 6]");
  if (matrix->rank == 2 && x->rank == 4 && matrix->dims[0] >= 0 && x->dims[0] >= 0 && matrix->dims[0] != 1 && matrix->dims[0] != x->dims[0])
    return cml_call_fail(c, err, "%lld matrices for %lld images", (long long)matrix->dims[0], (long long)x->dims[0]);
  int64_t dims[4] = {x->rank == 4 ? x->dims[0] : -1, x->rank == 4 ? x->dims[1] : -1, height, width};
  cml_out_set(c, 0, x->dtype, 4, dims);
  return cml_check_output(c, 0, err);
}

/* n points from -1 to 1, index times scale plus shift: the ends, and the middle where there is one; or the middles of n equal parts, as torch has it. */
static axis_of_pixels unit_points(int64_t n, bool align) {
  if (!align) return (axis_of_pixels){2 / (double)n, 1 / (double)n - 1};
  return n > 1 ? (axis_of_pixels){2 / (double)(n - 1), -1} : (axis_of_pixels){0, 0};
}

static void coordinates_of_matrix(const resample_job *j, int64_t image, int64_t first, size_t n, coordinates_of_run *to) {
  const axis_of_pixels across = unit_points(j->columns, j->align), down = unit_points(j->rows, j->align);
  int64_t column = first % j->columns, row = first / j->columns;
  double m[6];
  for (int k = 0; k < 6; k++) m[k] = cml_tensor_get(j->coordinates, (j->coordinates->dims[0] == 1 ? 0 : image) * 6 + k);
  for (size_t i = 0; i < n; i++) {
    double x = (double)column * across.scale + across.shift, y = (double)row * down.scale + down.shift;
    to->columns[i] = m[0] * x + m[1] * y + m[2];
    to->rows[i] = m[3] * x + m[4] * y + m[5];
    if (++column == j->columns) column = 0, row++;
  }
}

static void affine_tasks(void *context, size_t begin, size_t end) { each_run(context, begin, end, coordinates_of_matrix); }

static cml_status run_affine(cml_call *c, cml_error *err) {
  (void)err;
  resample_job j = {.coordinates = cml_arg(c, 1), .rows = c->outs[0]->dims[2], .columns = c->outs[0]->dims[3]};
  j.sampler = sampler_of(c, j.rows * j.columns, 0);
  j.align = cml_arg_bool(c, 8, true);
  place_pixels(&j, MINUS_ONE_TO_ONE, j.align);
  cml_parallel(c->pool, (size_t)(c->outs[0]->dims[0] * j.sampler.step), grain_of(&j.sampler), affine_tasks, &j);
  return CML_OK;
}

/* ---- the table ---- */

#define ROW(text, since_, until_, parameters, infer_, run_)                                                    \
  {.name = text, .since = since_, .until = until_, .min_outputs = 1, .max_outputs = 1, CML_PARAMS(parameters), \
   .infer = infer_, .run = run_},

static const cml_op rows[] = {
    ROW("crop_resize", CML_IOS15, CML_IOS15, crop_resize_15, infer_crop_resize_15, run_crop_resize_15)
    ROW("crop_resize", CML_IOS16, CML_IOS16, crop_resize_16, infer_crop_resize_15, run_crop_resize_15)
    ROW("crop_resize", CML_IOS17, 0, crop_resize_17, infer_crop_resize_17, run_crop_resize_17)
    ROW("resample", CML_IOS15, CML_IOS15, resample_15, infer_resample, run_resample)
    ROW("resample", CML_IOS16, CML_IOS16, resample_16, infer_resample, run_resample)
    ROW("resample", CML_IOS17, 0, resample_17, infer_resample, run_resample)
    ROW("affine", CML_IOS15, 0, affine_params, infer_affine, run_affine)
};

const cml_op_family cml_ops_image_sample = {"image_sample", rows, sizeof rows / sizeof *rows};
