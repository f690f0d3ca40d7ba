/* Every function often enough that a leak of ours shows: 20 of each. */
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "densecore.h"

enum { NUM_ROUNDS = 20 };

static atomic_int num_open;

static void on_token(const char* token, int is_finished, void* user_data) {
  (void)token;
  (void)user_data;
  num_open -= is_finished;
}

static void on_vector(const float* embedding, int size, void* user_data) {
  (void)embedding;
  (void)size;
  (void)user_data;
  num_open--;
}

int main(void) {
  DenseCoreHandle engine = InitEngine("demo", NULL, 1, -1, 0);
  if (!engine) return 1;
  const int tokens[] = {684, 11, 1248};
  for (int i = 0; i < NUM_ROUNDS; i++) {
    num_open += 3;
    if (SubmitRequest(engine, "Hello", 2, on_token, NULL) <= 0) return 2;
    if (SubmitRequestIds(engine, tokens, 3, 2, on_token, NULL) <= 0) return 3;
    if (SubmitEmbeddingRequest(engine, "Hello", on_vector, NULL) <= 0) return 4;
    if (i % 4 == 0) CancelRequest(engine, 3 * i + 1);
    if (GetMetrics(engine).active_requests < 0) return 5;
    if (GetDetailedMetrics(engine).kv_cache_total_blocks <= 0) return 6;
  }
  while (num_open) usleep(1000);
  FreeEngine(engine);
  puts("ok");
  return 0;
}
