// The openai package: an answer, its pieces, a tool, a response, and an error, on the demo model.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const options = { model: "demo", temperature: 0, max_tokens: 64 };

const whole = await client.chat.completions.create({ ...options, messages });
assert.match(whole.choices[0].message.content, /Paris/);
assert.equal(whole.choices[0].finish_reason, "stop");

let text = "";
let usage = null;
const stream = await client.chat.completions.create({
  ...options,
  messages,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, whole.choices[0].message.content);
assert.equal(usage.total_tokens, whole.usage.total_tokens);

const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];
const asked = [{ role: "user", content: "What is the weather in Paris?" }];
const runner = client.chat.completions.stream({ ...options, messages: asked, tools });
const [call] = (await runner.finalMessage()).tool_calls;
assert.deepEqual(JSON.parse(call.function.arguments), { city: "Paris" });

const events = [];
const response = client.responses.stream({ model: "demo", temperature: 0, input: "Hello" });
for await (const event of response) events.push(event.type);
assert.equal(events[0], "response.created");
assert.equal(events.at(-1), "response.completed");

assert.ok((await client.models.list()).data.some((model) => model.id.startsWith("demo")));
// Asked for in base64 by default, and decoded by the client.
const [packed, plain] = await Promise.all(
  [undefined, "float"].map((encoding_format) =>
    client.embeddings.create({ model: "demo", input: ["Hello", "world"], encoding_format }),
  ),
);
assert.deepEqual(
  packed.data.map((item) => Array.from(Float32Array.from(item.embedding))),
  plain.data.map((item) => Array.from(Float32Array.from(item.embedding))),
);
await assert.rejects(
  client.embeddings.create({ model: "demo", input: "" }),
  OpenAI.BadRequestError,
);
await assert.rejects(
  client.chat.completions.create({ ...options, model: "absent", messages }),
  OpenAI.NotFoundError,
);
console.log("passed");
