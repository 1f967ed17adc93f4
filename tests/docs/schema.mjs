/* node schema.mjs SCHEMA <values: what ajv (draft 2020-12) finds wrong with each value of a JSON list; a list of lists of texts. */
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(process.env.MEOWBRIDGE_NPM + "/");
const Ajv = require("ajv/dist/2020");
// strictRequired would want what is required to be listed beside it, which "not both" cannot do.
const ajv = new Ajv({ strict: true, strictRequired: false, allowUnionTypes: true, allErrors: true });
const validate = ajv.compile(JSON.parse(readFileSync(process.argv[2], "utf8")));
const values = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(values.map(value => (validate(value) ? [] : validate.errors.map(e => `${e.instancePath} ${e.message}`)))));
