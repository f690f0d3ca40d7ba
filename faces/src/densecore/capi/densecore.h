/* DenseCore's C API on top of Quintet.
 *
 * Requests are answered through callbacks.  All callbacks of an engine come from one thread of its
 * own, one at a time, in the order of the tokens: what they share needs no
 * lock, and one that takes long holds up the others of that engine (but not its computing).  What
 * a callback points to is gone when it returns.  Every accepted request gets exactly one last
 * callback, whether it has ended, was cancelled or has failed.
 *
 * All functions may be called from any thread, callbacks included.  A handle that is NULL, freed
 * or never was one is answered with DENSECORE_ERROR, zeros, or nothing; it is never followed.
 * Why something failed is said on the standard error output.
 */
#ifndef DENSECORE_H
#define DENSECORE_H

#if defined(__GNUC__)
#define DENSECORE_API __attribute__((visibility("default")))
#else
#define DENSECORE_API
#endif

#define DENSECORE_OK 0
#define DENSECORE_ERROR (-1)         /* a bad argument or handle, or anything without its own code */
#define DENSECORE_OUT_OF_MEMORY (-2) /* no room: as many requests as the engine holds, or memory */
#define DENSECORE_INVALID_MODEL (-3) /* a model that cannot do this, such as embed or generate */
#define DENSECORE_TIMEOUT (-4)       /* an answer did not come in time */

#define DENSECORE_PINNING_SCATTER 0
#define DENSECORE_PINNING_COMPACT 1

#ifdef __cplusplus
extern "C" {
#endif

/* An engine; opaque. */
typedef void* DenseCoreHandle;

/* Some text of an answer.
 *
 * token: UTF-8, NUL-terminated, whole characters; may be empty.
 * is_finished: 1 in the last callback of a request, whose token may be the last text, 0 before.
 */
typedef void (*TokenCallback)(const char* token, int is_finished, void* user_data);

/* A vector of `size` numbers; NULL and 0 if the request failed or was cancelled. */
typedef void (*EmbeddingCallback)(const float* embedding, int size, void* user_data);

/* Rates are of the latest ten seconds or so; totals are since the model was loaded. */
typedef struct {
  float requests_per_second;
  float tokens_per_second;
  int active_requests;
  long total_tokens_generated;
} DenseCoreMetrics;

/* Times are in milliseconds. */
typedef struct {
  int active_requests;
  long total_requests;
  long completed_requests;
  long failed_requests;
  int pending_requests;

  long total_tokens_generated;
  long total_prompt_tokens;
  float tokens_per_second;

  float avg_time_to_first_token;
  float p50_time_to_first_token;
  float p90_time_to_first_token;
  float p99_time_to_first_token;

  float avg_inter_token_latency;
  float p50_inter_token_latency;
  float p90_inter_token_latency;
  float p99_inter_token_latency;

  float avg_queue_wait_time;
  float p99_queue_wait_time;

  int kv_cache_usage_blocks;
  int kv_cache_total_blocks;
  float kv_cache_usage_percent; /* 0 to 100 */

  float avg_batch_size; /* tokens computed per step */
  int current_batch_size;

  int oom_errors;     /* submissions refused with DENSECORE_OUT_OF_MEMORY */
  int timeout_errors; /* requests that took longer than they may */
} DetailedMetrics;

/* Load a model and start its engine; takes as long as loading does.  NULL if it fails.
 *
 * model_path: a GGUF file, or what Quintet knows by this name.
 * reserved: NULL.
 * threads: that compute; 0 for one per physical core.
 * numa_node_id: compute on the CPUs of this node, so that what is allocated lies there as well;
 *   -1 for all.  Where there is no such node a warning is given and all are used.
 * pinning_policy: which CPUs, where there are more than threads: DENSECORE_PINNING_SCATTER takes
 *   cores far apart, DENSECORE_PINNING_COMPACT neighbours and both threads of a core.  Threads
 *   may move among the CPUs chosen.
 */
DENSECORE_API DenseCoreHandle InitEngine(const char* model_path, const char* reserved, int threads, int numa_node_id,
                                         int pinning_policy);

/* Cancel what is running, and free the engine.  No callback comes after it has returned, unless it
 * was called by one: then it returns at once, and the engine ends after that callback. */
DENSECORE_API void FreeEngine(DenseCoreHandle handle);

/* Continue a text; what spells a control token is that token.  Returns at once: the request's id,
 * from 1, or an error code.  The callback may come before it returns. */
DENSECORE_API int SubmitRequest(DenseCoreHandle handle, const char* prompt, int max_tokens, TokenCallback callback,
                                void* user_data);

/* Continue tokens, which are read before it returns; else as SubmitRequest. */
DENSECORE_API int SubmitRequestIds(DenseCoreHandle handle, const int* tokens, int n_tokens, int max_tokens,
                                   TokenCallback callback, void* user_data);

/* The mean of a text's token vectors, at length 1; else as SubmitRequest. */
DENSECORE_API int SubmitEmbeddingRequest(DenseCoreHandle handle, const char* prompt, EmbeddingCallback callback,
                                         void* user_data);

/* End a request; its last callback follows.  0, or DENSECORE_ERROR if there is none of this id. */
DENSECORE_API int CancelRequest(DenseCoreHandle handle, int request_id);

/* All zeros for a bad handle. */
DENSECORE_API DenseCoreMetrics GetMetrics(DenseCoreHandle handle);
DENSECORE_API DetailedMetrics GetDetailedMetrics(DenseCoreHandle handle);

#ifdef __cplusplus
}
#endif

#endif
