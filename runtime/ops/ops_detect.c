/* non_maximum_suppression: of boxes that overlap, the one with the best score.
 *
 * Boxes are taken in the order of their largest score over the classes. Each that is still standing is kept, and strikes out
 * what overlaps it by more than the threshold (within its class alone, when suppression is per class: a box belongs to the
 * class of its largest score). Up to iOS16 boxes lie as [n, B, 4] and scores as [n, B, K], from iOS17 on as [n, 4, B] and
 * [n, K, B]; a threshold on scores and the count of boxes are there up to iOS16 only. */
#include <math.h>
#include <stdlib.h>

#include "elementwise.h"
#include "families.h"

#define BOXES {"boxes", CML_M_FLOAT, 0, 1}, {"scores", CML_M_FLOAT, 0, 1}, {"iou_threshold", CML_M_FLOAT, CML_CONST, 1}
#define LIMITS {"max_boxes", CML_MASK(I32), CML_CONST, 0}, {"per_class_suppression", CML_M_BOOL, CML_OPTIONAL | CML_CONST, 0}
static const cml_param nms_15[] = {BOXES, {"score_threshold", CML_M_FLOAT, CML_CONST, 1}, LIMITS};
static const cml_param nms_17[] = {BOXES, LIMITS};

static bool is_new(const cml_call *c) { return c->opset >= CML_IOS17; }

typedef struct candidate {
  float score, x1, y1, x2, y2;
  int32_t index, group;
} candidate;

static cml_status infer_nms(cml_call *c, cml_error *err) {
  const cml_tensor *boxes = cml_arg(c, 0), *scores = cml_arg(c, 1);
  bool later = is_new(c);
  unsigned limit = later ? 3 : 4;
  int box_axis = later ? 2 : 1, other = later ? 1 : 2;
  CML_TRY(cml_check_scalars(c, (1u << c->op->param_count) - 4, err));
  int64_t most = cml_arg_int(c, limit, 0);
  if (most < 0) return cml_call_fail(c, err, "max_boxes is %lld", (long long)most);
  if ((boxes->rank >= 0 && boxes->rank != 3) || (scores->rank >= 0 && scores->rank != 3))
    return cml_call_fail(c, err, "boxes and scores must have rank 3");
  if (c->out_count != (later ? 3u : 4u)) return cml_call_fail(c, err, "has %zu outputs", c->out_count);
  int64_t n = CML_DIM_UNKNOWN, classes = CML_DIM_UNKNOWN, count = CML_DIM_UNKNOWN;
  if (boxes->rank == 3) {
    n = boxes->dims[0];
    count = boxes->dims[box_axis];
    if (boxes->dims[other] >= 0 && boxes->dims[other] != 4) return cml_call_fail(c, err, "a box has %lld coordinates", (long long)boxes->dims[other]);
  }
  if (scores->rank == 3) {
    classes = scores->dims[other];
    if (n < 0) n = scores->dims[0];
    if ((scores->dims[0] >= 0 && n != scores->dims[0]) || (count >= 0 && scores->dims[box_axis] >= 0 && count != scores->dims[box_axis]))
      return cml_call_fail(c, err, "boxes and scores are not for the same boxes");
  }
  if (count > INT32_MAX) return cml_call_fail(c, err, "there are too many boxes");
  if (classes == 0) return cml_call_fail(c, err, "there are no classes");
  int64_t dims[3] = {n, later ? 4 : most, later ? most : 4};
  cml_out_set(c, 0, boxes->dtype, 3, dims);
  dims[other] = classes;
  cml_out_set(c, 1, boxes->dtype, 3, dims);
  dims[1] = most;
  cml_out_set(c, 2, CML_I32, 2, dims);
  if (!later) cml_out_set(c, 3, CML_I32, 1, dims);
  if (count >= 0) c->scratch_size = (uint64_t)count * sizeof(candidate);
  for (size_t i = 0; i < c->out_count; i++) CML_TRY(cml_check_output(c, i, err));
  return CML_OK;
}

static int by_score(const void *a, const void *b) {
  const candidate *x = a, *y = b;
  if (x->score != y->score) return x->score < y->score ? 1 : -1;
  return x->index < y->index ? -1 : x->index > y->index;
}

/* Intersection over union of two boxes by their corners; 0 for empty ones. */
static float overlap(const candidate *a, const candidate *b) {
  float w = fminf(a->x2, b->x2) - fmaxf(a->x1, b->x1), h = fminf(a->y2, b->y2) - fmaxf(a->y1, b->y1);
  if (!(w > 0 && h > 0)) return 0;
  float both = w * h, all = (a->x2 - a->x1) * (a->y2 - a->y1) + (b->x2 - b->x1) * (b->y2 - b->y1) - both;
  return all > 0 ? both / all : 0;
}

/* Element (image, box, k) of boxes or scores. */
static float element(const cml_tensor *t, bool later, int64_t image, int64_t box, int64_t k) {
  int64_t at = later ? (image * t->dims[1] + k) * t->dims[2] + box : (image * t->dims[1] + box) * t->dims[2] + k;
  return (float)cml_tensor_get(t, at);
}

static void read_candidate(const cml_call *c, int64_t image, int64_t box, candidate *to) {
  const cml_tensor *boxes = cml_arg(c, 0), *scores = cml_arg(c, 1);
  bool later = is_new(c);
  float v[4];
  for (int k = 0; k < 4; k++) v[k] = element(boxes, later, image, box, k);
  *to = (candidate){-INFINITY, v[0] - 0.5f * v[2], v[1] - 0.5f * v[3], v[0] + 0.5f * v[2], v[1] + 0.5f * v[3], (int32_t)box, 0};
  for (int64_t k = 0; k < scores->dims[later ? 1 : 2]; k++) {
    float s = element(scores, later, image, box, k);
    if (s > to->score) to->score = s, to->group = (int32_t)k;
  }
}

/* Moves the survivors to the front; returns how many there are, at most `most`. */
static int64_t suppress(candidate *list, int64_t count, int64_t most, float threshold, bool per_class) {
  int64_t kept = 0;
  for (int64_t i = 0; i < count && kept < most; i++) {
    bool stands = true;
    for (int64_t k = 0; stands && k < kept; k++)
      stands = (per_class && list[k].group != list[i].group) || !(overlap(&list[k], &list[i]) > threshold);
    if (stands) list[kept++] = list[i];
  }
  return kept;
}

/* One column of boxes, scores and indices; box -1 pads. */
static void write_box(cml_call *c, int64_t image, int64_t place, int64_t box) {
  bool later = is_new(c);
  for (int i = 0; i < 2; i++) {
    cml_tensor *out = c->outs[i];
    int64_t depth = out->dims[later ? 1 : 2], most = out->dims[later ? 2 : 1];
    for (int64_t k = 0; k < depth; k++) {
      int64_t at = later ? (image * depth + k) * most + place : (image * most + place) * depth + k;
      cml_tensor_set(out, at, box < 0 ? 0 : (double)element(cml_arg(c, (unsigned)i), later, image, box, k));
    }
  }
  ((int32_t *)c->outs[2]->data)[image * c->outs[2]->dims[1] + place] = (int32_t)box;
}

static cml_status run_nms(cml_call *c, cml_error *err) {
  (void)err;
  const cml_tensor *boxes = cml_arg(c, 0);
  bool later = is_new(c), per_class = cml_arg_bool(c, later ? 4 : 5, false);
  float iou = (float)cml_arg_float(c, 2, 0), lowest = later ? -INFINITY : (float)cml_arg_float(c, 3, 0);
  int64_t most = c->outs[2]->dims[1], total = boxes->dims[later ? 2 : 1];
  candidate *list = c->scratch;
  for (int64_t image = 0; image < boxes->dims[0]; image++) {
    int64_t count = 0;
    for (int64_t b = 0; b < total; b++) {
      read_candidate(c, image, b, &list[count]);
      if (list[count].score >= lowest) count++;
    }
    if (count) qsort(list, (size_t)count, sizeof *list, by_score);
    int64_t kept = suppress(list, count, most, iou, per_class);
    for (int64_t i = 0; i < most; i++) write_box(c, image, i, i < kept ? list[i].index : -1);
    if (!later) ((int32_t *)c->outs[3]->data)[image] = (int32_t)kept;
  }
  return CML_OK;
}

static const cml_op rows[] = {
    {.name = "non_maximum_suppression", .since = CML_IOS15, .until = CML_IOS16, .min_outputs = 4, .max_outputs = 4, CML_PARAMS(nms_15),
     .infer = infer_nms, .run = run_nms},
    {.name = "non_maximum_suppression", .since = CML_IOS17, .min_outputs = 3, .max_outputs = 3, CML_PARAMS(nms_17), .infer = infer_nms,
     .run = run_nms},
};

const cml_op_family cml_ops_detect = {"detect", rows, sizeof rows / sizeof *rows};
