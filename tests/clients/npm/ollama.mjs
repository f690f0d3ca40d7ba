// The ollama package: an answer, its pieces, a tool, an abort, and an error, on the demo model.
import assert from "node:assert/strict";
import { Ollama } from "ollama";

const client = new Ollama({ host: process.argv[2] });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const options = { temperature: 0 };

const whole = await client.chat({ model: "demo", messages, options });
assert.match(whole.message.content, /Paris/);
assert.equal(whole.done_reason, "stop");

let text = "";
for await (const part of await client.chat({ model: "demo", messages, options, stream: true }))
  text += part.message.content;
assert.equal(text, whole.message.content);

const generated = await client.generate({ model: "demo", prompt: messages[0].content, options });
assert.equal(generated.response, whole.message.content);

const asked = [{ role: "user", content: "What is the weather in Paris?" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
const called = await client.chat({ model: "demo", messages: asked, options, tools });
assert.deepEqual(called.message.tool_calls[0].function.arguments, { city: "Paris" });

const long = { ...options, num_predict: 2000, repeat_penalty: 1 };
const request = { model: "demo", prompt: "Hi", raw: true, options: long, stream: true };
const endless = await client.generate(request);
await assert.rejects(
  async () => {
    for await (const _ of endless) endless.abort();
  },
  { name: "AbortError" },
);

assert.ok((await client.list()).models.some((model) => model.name === "demo:latest"));
assert.ok((await client.show({ model: "demo" })).capabilities.includes("completion"));
const { embeddings } = await client.embed({ model: "demo", input: ["Hello", "world"] });
assert.equal(embeddings.length, 2);
await assert.rejects(client.embed({ model: "demo", input: 7 }), { status_code: 400 });
await assert.rejects(client.chat({ model: "absent", messages }), { status_code: 404 });
console.log("passed");
