/* Programs: the files behind them, and the backends that delegates may name. */
#include <stdlib.h>

#include "et_internal.h"

/* ---- backends ---- */

enum { MAX_BACKENDS = 32 };
static cml_et_backend backends[MAX_BACKENDS]; /* only added to; an entry is replaced under the lock */
static size_t backend_count;
static pthread_mutex_t backend_mutex = PTHREAD_MUTEX_INITIALIZER;

cml_status cml_et_backend_register(const cml_et_backend *backend, cml_error *err) {
  if (!backend->id || !backend->execute) return cml_fail(err, CML_ARGUMENT, CML_NO_OFFSET, "a backend needs an id and execute");
  pthread_mutex_lock(&backend_mutex);
  size_t i = 0;
  while (i < backend_count && strcmp(backends[i].id, backend->id)) i++;
  bool room = i < MAX_BACKENDS;
  if (room) backends[i] = *backend;
  if (room && i == backend_count) backend_count++;
  pthread_mutex_unlock(&backend_mutex);
  return room ? CML_OK : cml_fail(err, CML_LIMIT, CML_NO_OFFSET, "there are %d backends already", MAX_BACKENDS);
}

const cml_et_backend *cml_et_backend_find(cml_string id) {
  const cml_et_backend *found = NULL;
  pthread_mutex_lock(&backend_mutex);
  for (size_t i = 0; !found && i < backend_count; i++)
    if (cml_pte_string_is(id, backends[i].id)) found = &backends[i];
  pthread_mutex_unlock(&backend_mutex);
  if (!found && cml_pte_string_is(id, cml_et_coreml_backend.id)) found = &cml_et_coreml_backend;
  return found;
}

/* ---- programs ---- */

static cml_status add_data(cml_et_program *p, cml_container_file file, cml_error *err) {
  cml_et_data *d = calloc(1, sizeof *d);
  if (!d) return cml_fail_memory(err);
  cml_status status = cml_ptd_parse(file.bytes, &d->ptd, err);
  if (status) {
    free(d);
    return cml_error_prefix(err, status, "%s", cml_mapping_path(file.mapping));
  }
  d->mapping = cml_mapping_ref(file.mapping);
  d->next = p->data;
  p->data = d;
  return CML_OK;
}

static cml_status parse(cml_et_program *p, cml_span bytes, cml_error *err) {
  if (bytes.size >= 8 && !memcmp(bytes.data + 4, "BP08", 4)) {
    CML_TRY(cml_bpte_parse(bytes, &p->bpte, err));
    bytes = p->bpte->program;
  }
  return cml_pte_parse(bytes, &p->pte, err);
}

static cml_status create(cml_container_file file, cml_container_file data, const cml_et_options *options, cml_et_program **out,
                         cml_error *err) {
  cml_et_program *p = calloc(1, sizeof *p);
  if (!p) return cml_fail_memory(err);
  pthread_mutex_init(&p->mutex, NULL);
  p->mapping = cml_mapping_ref(file.mapping);
  if (options) p->options = *options;
  cml_status status = parse(p, file.bytes, err);
  if (!status && data.mapping) status = add_data(p, data, err);
  if (!status) status = cml_pool_create((size_t)p->options.threads, &p->pool, err);
  if (status) cml_et_program_close(p);
  else *out = p;
  return status;
}

static cml_container_file whole(cml_mapping *mapping) {
  return mapping ? (cml_container_file){mapping, cml_mapping_span(mapping)} : (cml_container_file){NULL, {NULL, 0}};
}

cml_status cml_et_program_create(cml_mapping *mapping, cml_mapping *data, const cml_et_options *options, cml_et_program **out,
                                 cml_error *err) {
  return create(whole(mapping), whole(data), options, out, err);
}

cml_status cml_et_program_from_container(const cml_container *c, const char *data_path, const cml_et_options *options,
                                         cml_et_program **out, cml_error *err) {
  cml_container_file file = cml_container_program_file(c), data = cml_container_data_file(c);
  cml_mapping *other = NULL;
  if (!file.mapping) return cml_fail(err, CML_UNSUPPORTED, CML_NO_OFFSET, "there is no ExecuTorch program in it");
  if (data_path) CML_TRY(cml_mapping_open(data_path, &other, err));
  cml_status status = create(file, other ? whole(other) : data, options, out, err);
  cml_mapping_unref(other);
  return status;
}

cml_status cml_et_program_open(const char *path, const char *data_path, const cml_et_options *options, cml_et_program **out,
                               cml_error *err) {
  cml_mapping *mapping = NULL, *data = NULL;
  cml_status status = cml_mapping_open(path, &mapping, err);
  if (!status && data_path) status = cml_mapping_open(data_path, &data, err);
  if (!status) status = cml_et_program_create(mapping, data, options, out, err);
  cml_mapping_unref(data);
  cml_mapping_unref(mapping);
  return status;
}

cml_status cml_et_program_add_data(cml_et_program *p, const char *path, cml_error *err) {
  cml_mapping *mapping = NULL;
  CML_TRY(cml_mapping_open(path, &mapping, err));
  cml_status status = add_data(p, whole(mapping), err);
  cml_mapping_unref(mapping);
  return status;
}

void cml_et_program_close(cml_et_program *p) {
  if (!p) return;
  cml_et_coreml_models_free(p->models);
  cml_pool_destroy(p->pool);
  for (cml_et_data *d = p->data, *next; d; d = next) {
    next = d->next;
    cml_ptd_destroy(d->ptd);
    cml_mapping_unref(d->mapping);
    free(d);
  }
  cml_pte_destroy(p->pte);
  cml_bpte_destroy(p->bpte);
  cml_mapping_unref(p->mapping);
  pthread_mutex_destroy(&p->mutex);
  free(p);
}

const cml_pte *cml_et_program_pte(const cml_et_program *p) { return p->pte; }
const cml_bpte *cml_et_program_bpte(const cml_et_program *p) { return p->bpte; }
cml_mapping *cml_et_program_mapping(const cml_et_program *p) { return p->mapping; }
const cml_et_options *cml_et_program_options(const cml_et_program *p) { return &p->options; }
