/* 16 threads submit, cancel and ask at once; all callbacks come from one thread. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "densecore.h"

enum { NUM_THREADS = 16, NUM_ROUNDS = 12 };

typedef struct {
  atomic_int num_last;
  atomic_int num_after_last;
} Request;

static DenseCoreHandle engine;
static Request requests[NUM_THREADS][NUM_ROUNDS];
static atomic_int num_accepted, num_last, num_other_threads, num_wrong;
static pthread_t callback_thread;
static atomic_int has_thread;

static void seen(Request* request, int is_last) {
  if (!atomic_exchange(&has_thread, 1)) callback_thread = pthread_self();
  if (!pthread_equal(callback_thread, pthread_self())) num_other_threads++;
  if (request->num_last) request->num_after_last++;
  if (is_last) {
    request->num_last++;
    num_last++;
  }
}

static void on_token(const char* token, int is_finished, void* user_data) {
  if (token == NULL) num_wrong++;
  seen(user_data, is_finished);
}

static void on_vector(const float* embedding, int size, void* user_data) {
  if (embedding != NULL && size <= 0) num_wrong++;
  seen(user_data, 1);
}

static void* work(void* argument) {
  int thread = (int)(long)argument;
  unsigned seed = (unsigned)thread;
  for (int round = 0; round < NUM_ROUNDS; round++) {
    Request* request = &requests[thread][round];
    int id;
    if (round % 4 == 3)
      id = SubmitEmbeddingRequest(engine, "Hello world", on_vector, request);
    else
      id = SubmitRequest(engine, "Tell me about", 1 + rand_r(&seed) % 8, on_token, request);
    if (id <= 0) {
      num_wrong++;
      continue;
    }
    num_accepted++;
    if (rand_r(&seed) % 3 == 0) CancelRequest(engine, id);
    CancelRequest(engine, rand_r(&seed) % 50);
    if (GetMetrics(engine).active_requests < 0) num_wrong++;
    if (GetDetailedMetrics(engine).kv_cache_total_blocks <= 0) num_wrong++;
    if (SubmitRequest((DenseCoreHandle)(long)seed, "x", 1, on_token, request) != DENSECORE_ERROR && seed != 1)
      num_wrong++;
  }
  return NULL;
}

int main(void) {
  pthread_t threads[NUM_THREADS];
  engine = InitEngine("demo", NULL, 2, -1, 0);
  if (!engine) return 1;
  for (long i = 0; i < NUM_THREADS; i++) pthread_create(&threads[i], NULL, work, (void*)i);
  for (int i = 0; i < NUM_THREADS; i++) pthread_join(threads[i], NULL);
  FreeEngine(engine);
  for (int i = 0; i < NUM_THREADS; i++)
    for (int j = 0; j < NUM_ROUNDS; j++)
      if (requests[i][j].num_last != 1 || requests[i][j].num_after_last) num_wrong++;
  printf("accepted %d finished %d elsewhere %d wrong %d\n", num_accepted, num_last, num_other_threads, num_wrong);
  return num_accepted != NUM_THREADS * NUM_ROUNDS || num_last != num_accepted || num_other_threads || num_wrong;
}
