/* Arguments that make no sense, handles that are none, and callbacks that call back. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "densecore.h"

#define EXPECT(condition)                                              \
  do {                                                                 \
    if (!(condition)) {                                                \
      fprintf(stderr, "line %d: expected %s\n", __LINE__, #condition); \
      return 1;                                                        \
    }                                                                  \
  } while (0)

static volatile int num_finished, num_vectors, chained_id, num_after_free, is_freed;
static DenseCoreHandle engine;

static void on_token(const char* token, int is_finished, void* user_data) {
  (void)token;
  (void)user_data;
  if (is_freed) num_after_free++;
  if (is_finished) num_finished++;
}

static void on_chained(const char* token, int is_finished, void* user_data) {
  (void)token;
  (void)user_data;
  if (is_finished) chained_id = SubmitRequest(engine, "Hello", 2, on_token, NULL);
}

static void on_vector(const float* embedding, int size, void* user_data) {
  (void)user_data;
  if ((embedding == NULL) == (size == 0)) num_vectors++;
}

static void on_token_free(const char* token, int is_finished, void* user_data) {
  (void)token;
  if (is_finished) num_finished++;
  FreeEngine(*(DenseCoreHandle*)user_data);
}

int main(void) {
  EXPECT(InitEngine(NULL, NULL, 0, -1, 0) == NULL);
  EXPECT(InitEngine("/nonexistent.gguf", NULL, 0, -1, 0) == NULL);
  EXPECT(InitEngine("demo", NULL, -1, -1, 0) == NULL);
  EXPECT(InitEngine("demo", NULL, 0, -2, 0) == NULL);
  EXPECT(InitEngine("demo", NULL, 0, -1, 7) == NULL);
  engine = InitEngine("demo", NULL, 2, -1, DENSECORE_PINNING_COMPACT);
  EXPECT(engine != NULL);

  DenseCoreHandle wrong[] = {NULL, (DenseCoreHandle)0xdeadbeef, (DenseCoreHandle)-1, &engine};
  for (int i = 0; i < 4; i++) {
    EXPECT(SubmitRequest(wrong[i], "x", 1, on_token, NULL) == DENSECORE_ERROR);
    EXPECT(SubmitEmbeddingRequest(wrong[i], "x", on_vector, NULL) == DENSECORE_ERROR);
    EXPECT(CancelRequest(wrong[i], 1) == DENSECORE_ERROR);
    EXPECT(GetMetrics(wrong[i]).total_tokens_generated == 0);
    EXPECT(GetDetailedMetrics(wrong[i]).kv_cache_total_blocks == 0);
    FreeEngine(wrong[i]);
  }
  const int tokens[] = {1, 2, INT_MAX, -1};
  EXPECT(SubmitRequest(engine, NULL, 1, on_token, NULL) == DENSECORE_ERROR);
  EXPECT(SubmitRequest(engine, "x", 0, on_token, NULL) == DENSECORE_ERROR);
  EXPECT(SubmitRequest(engine, "x", -5, on_token, NULL) == DENSECORE_ERROR);
  EXPECT(SubmitRequest(engine, "x", 1, NULL, NULL) == DENSECORE_ERROR);
  EXPECT(SubmitRequest(engine, "\xff\xfe", 1, on_token, NULL) == DENSECORE_ERROR);
  EXPECT(SubmitRequestIds(engine, NULL, 1, 1, on_token, NULL) == DENSECORE_ERROR);
  EXPECT(SubmitRequestIds(engine, tokens, 0, 1, on_token, NULL) == DENSECORE_ERROR);
  EXPECT(SubmitRequestIds(engine, tokens, INT_MAX, 1, on_token, NULL) == DENSECORE_ERROR);
  EXPECT(SubmitRequestIds(engine, tokens, 3, 1, on_token, NULL) == DENSECORE_ERROR);
  EXPECT(SubmitRequestIds(engine, tokens + 3, 1, 1, on_token, NULL) == DENSECORE_ERROR);
  EXPECT(SubmitEmbeddingRequest(engine, NULL, on_vector, NULL) == DENSECORE_ERROR);
  EXPECT(SubmitEmbeddingRequest(engine, "x", NULL, NULL) == DENSECORE_ERROR);
  EXPECT(CancelRequest(engine, 1) == DENSECORE_ERROR);
  EXPECT(CancelRequest(engine, INT_MIN) == DENSECORE_ERROR);
  EXPECT(num_finished == 0 && num_vectors == 0);

  /* A callback may submit. */
  EXPECT(SubmitRequest(engine, "Hello", 2, on_chained, NULL) == 1);
  while (num_finished < 1) usleep(1000);
  EXPECT(chained_id == 2);

  /* A text that does not fit is told of by the callback. */
  static char longest[1 << 20];
  memset(longest, 'a', sizeof longest - 1);
  EXPECT(SubmitRequest(engine, longest, 1, on_token, NULL) == DENSECORE_ERROR);
  EXPECT(SubmitEmbeddingRequest(engine, longest, on_vector, NULL) > 0);
  while (num_vectors < 1) usleep(1000);

  /* Cancelled and freed requests have their last callback; none comes after FreeEngine. */
  int id = SubmitRequest(engine, "Hello", 1000, on_token, NULL);
  EXPECT(CancelRequest(engine, id) == DENSECORE_OK);
  EXPECT(CancelRequest(engine, id) == DENSECORE_ERROR);
  for (int i = 0; i < 4; i++) EXPECT(SubmitRequest(engine, "x", 1000, on_token, NULL) > 0);
  FreeEngine(engine);
  is_freed = 1;
  EXPECT(num_finished == 6);
  FreeEngine(engine);
  EXPECT(SubmitRequest(engine, "x", 1, on_token, NULL) == DENSECORE_ERROR);
  usleep(20000);
  EXPECT(num_after_free == 0);

  /* A callback may free its engine. */
  is_freed = 0;
  DenseCoreHandle last = InitEngine("demo", NULL, 1, -1, 0);
  EXPECT(last != NULL);
  EXPECT(SubmitRequest(last, "Hello", 5, on_token_free, &last) > 0);
  while (num_finished < 7) usleep(1000);

  /* Leaving without freeing is no crash. */
  EXPECT(InitEngine("demo", NULL, 1, -1, 0) != NULL);
  puts("ok");
  return 0;
}
