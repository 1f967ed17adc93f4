/* docs/asyncapi.yaml: node asyncapi.mjs FILE <messages. Prints what its parser finds wrong with it, and what is wrong with each message of
 * standard input, a JSON list of {channel, message, topic, headers, payload (text), qos, retain, contentType, format}: a list of lists. */
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(process.env.MEOWBRIDGE_NPM + "/");
const { Parser } = require("@asyncapi/parser");
const Ajv = require("ajv");
const formats = require("ajv-formats");

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
// "asyncapi-latest-version" is advice: 3.0.0 is what every tool reads.
const wrong = diagnostics.filter(d => d.code !== "asyncapi-latest-version").map(d => `${d.code}: ${d.path.join(".")}: ${d.message}`);
if (!document) throw new Error(wrong.join("\n"));

// AsyncAPI's schemas are draft 7; the parser adds members of its own, x-parser-….
const ajv = new Ajv({ allErrors: true, strict: false });
formats(ajv);
function errors(schema, value, what) {
  const validate = ajv.compile(schema.json());
  return validate(value) ? [] : validate.errors.map(e => `${what}${e.instancePath} ${e.message}`);
}

function check({ channel, message, topic, headers, payload, qos, retain, contentType, format }) {
  const found = [];
  const c = document.channels().get(channel), m = c.messages().get(message);
  const address = new RegExp("^" + c.address().replace(/\{\w+\}/g, "[^/]+") + "$");
  if (!address.test(topic)) found.push(`topic ${topic} is not ${c.address()}`);
  const binding = c.operations().all()[0].bindings().get("mqtt").value();
  if (binding.qos !== qos || binding.retain !== retain) found.push(`qos ${qos} retain ${retain} are not ${JSON.stringify(binding)}`);
  if (m.headers()) {
    found.push(...errors(m.headers(), headers, "headers"));
    const known = m.headers().json().properties;
    found.push(...Object.keys(headers).filter(name => !(name in known)).map(name => `headers: ${name} is not described`));
    if (m.contentType() !== contentType) found.push(`content type ${contentType} is not ${m.contentType()}`);
    if (m.bindings().get("mqtt").value().payloadFormatIndicator !== format) found.push(`format ${format}`);
  }
  found.push(...errors(m.payload(), m.contentType() === "text/plain" ? payload : JSON.parse(payload), "payload"));
  return found;
}

const messages = JSON.parse(readFileSync(0, "utf8"));
const examples = document.allMessages().all().flatMap(m => m.examples().all().flatMap(e =>
  [...errors(m.headers(), e.headers(), "example headers"), ...errors(m.payload(), e.payload(), "example payload")]));
console.log(JSON.stringify({ document: [...wrong, ...examples], messages: messages.map(check) }));
