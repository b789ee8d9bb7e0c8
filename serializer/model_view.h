/* A model's view: generated files that show what its exact files hold. */
#ifndef CML_MODEL_VIEW_H
#define CML_MODEL_VIEW_H

#include "mil.h"

/* Gives the elements of what a constexpr_ operation stands for, packed as its output's type says; appended to out. */
typedef cml_status cml_model_decompress(const cml_mil_op *op, const cml_mil_function *function, cml_buffer *out, cml_error *err);

typedef struct cml_model_view_options {
  cml_model_decompress *decompress; /* NULL: there will be no dense/ */
} cml_model_view_options;

/* Adds to `folder` of `tree`, for the model that `root` of `source` holds (see cml_model_read):
 *
 *     model.mil                 the program as text
 *     summary.txt, summary.json operators, parameters, bytes, multiply-adds
 *     io.json                   inputs, states, outputs, metadata
 *     graph.svg or graph.dot    one a function when there are several: graph_NAME.svg
 *     weights/NAME.npy          constants of weight files and larger inline ones, by the constant's name; the parts of a
 *                               compressed one as stored: NAME.indices.npy. Below FUNCTION/ when there are several functions;
 *                               in the folder of that name, when there is one already
 *     dense/NAME.npy            compressed constants as decompressed
 *
 * Nothing is generated before it is read; weights are shown from where they lie. A model that cannot be read gives one
 * file, error.txt, that says why. `source` is referenced as long as the tree lives and must be another tree. options may be NULL. */
CML_API CML_NODISCARD cml_status cml_model_view_add(cml_tree *tree, cml_node *folder, cml_tree *source, const cml_node *root,
                                                    const cml_model_view_options *options, cml_error *err);

#endif
