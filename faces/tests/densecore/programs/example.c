/* The fragments of the API reference in one program. */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "densecore.h"

static volatile int num_open = 4;

static void on_token(const char* token, int is_finished, void* user_data) {
  (void)user_data;
  printf("%s", token);
  if (is_finished) printf("\n");
  if (is_finished) num_open--;
}

static void on_embedding(const float* embedding, int size, void* user_data) {
  float sum = 0;
  for (int i = 0; i < size; i++) sum += embedding[i] * embedding[i];
  printf("Embedding dimension: %d length %.3f user %s\n", size, sum, (const char*)user_data);
  num_open--;
}

int main(void) {
  unsetenv("LC_CTYPE");
  DenseCoreHandle engine = InitEngine("demo", NULL, 8, -1, 0);
  if (!engine) {
    fprintf(stderr, "Failed to initialize engine\n");
    return 1;
  }
  if (strcmp(setlocale(LC_ALL, NULL), "C") || getenv("LC_CTYPE")) return 7; /* ours, still */
  /* A machine without that node warns and goes on. */
  DenseCoreHandle engine2 = InitEngine("demo", NULL, 1, 1, 1);
  if (!engine2) return 2;
  int req_id = SubmitRequest(engine, "Hello!", 100, on_token, NULL);
  if (req_id < 0) {
    fprintf(stderr, "Request failed: %d\n", req_id);
    return 3;
  }
  if (SubmitEmbeddingRequest(engine, "Hello world", on_embedding, "data") <= 0) return 4;
  const int tokens[] = {684, 11, 1248};
  if (SubmitRequestIds(engine, tokens, 3, 5, on_token, NULL) <= 0) return 5;
  if (SubmitRequest(engine2, "Hello!", 5, on_token, NULL) <= 0) return 6;
  while (num_open) usleep(1000);
  DenseCoreMetrics metrics = GetMetrics(engine);
  DetailedMetrics detailed = GetDetailedMetrics(engine);
  printf("tokens %ld of %ld requests, %d KV blocks, first after %.3f ms\n", metrics.total_tokens_generated,
         detailed.total_requests, detailed.kv_cache_total_blocks, detailed.avg_time_to_first_token);
  if (metrics.requests_per_second <= 0 || metrics.tokens_per_second <= 0 || metrics.active_requests) return 8;
  FreeEngine(engine);
  FreeEngine(engine2);
  return detailed.completed_requests < 2 || detailed.avg_time_to_first_token <= 0;
}
